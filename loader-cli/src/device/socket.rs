//! The device over a Unix socket: [`lineinfo_core::uapi::socket`].

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, Reply, Request};
use lineinfo_core::uapi::{Direction, Ioctl};
use zerocopy::{FromBytes, IntoBytes};

use super::{Access, Refusal, Transport};

/// A connection with the device open.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

/// Opens the device of a connection.
pub(super) fn open(stream: UnixStream, access: Access) -> Result<Socket, Refusal> {
    let mut socket = Socket(stream);
    let flags = match access {
        Access::Read => OPEN_READ,
        Access::Write => OPEN_READ | OPEN_WRITE,
    };
    socket.request(Op::Open, flags, &[], &mut [])?;
    Ok(socket)
}

impl Socket {
    /// Sends a request, and reads the reply with the payload that it should have.
    fn request(
        &mut self,
        op: Op,
        arg: u32,
        payload: &[u8],
        answer: &mut [u8],
    ) -> Result<u32, Refusal> {
        let request = Request {
            op: op.number(),
            arg,
            len: payload.len() as u32,
        };
        self.0.write_all(request.as_bytes()).map_err(Refusal::Io)?;
        self.0.write_all(payload).map_err(Refusal::Io)?;
        let mut reply = [0; size_of::<Reply>()];
        self.0.read_exact(&mut reply).map_err(Refusal::Io)?;
        let reply = Reply::read_from_bytes(&reply)
            .map_err(|_| Refusal::Io(io::ErrorKind::InvalidData.into()))?;
        if reply.error != 0 && reply.len == 0 {
            return Err(Refusal::Errno(reply.error));
        }
        if reply.error != 0 || reply.len as usize != answer.len() {
            return Err(Refusal::Io(io::ErrorKind::InvalidData.into()));
        }
        self.0.read_exact(answer).map_err(Refusal::Io)?;
        Ok(reply.value)
    }
}

impl Transport for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        Ok(self.request(Op::Write, 0, bytes, &mut [])? as usize)
    }

    fn ioctl(&mut self, request: Ioctl, argument: &mut [u8]) -> Result<(), Refusal> {
        let sent = match request.direction() {
            Direction::None | Direction::Read => Vec::new(),
            Direction::ReadWrite => argument.to_vec(),
        };
        self.request(Op::Ioctl, request.code(), &sent, argument)?;
        Ok(())
    }
}
