//! The device behind a Unix socket: [`lineinfo_core::uapi::socket`].

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, Reply, Request};
use lineinfo_core::uapi::{
    Lookup, NR_COMMIT, NR_LOOKUP, NR_STATUS, NR_TARGET, NR_UNLOAD, Status, Target,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Access, Refusal, Transport};

/// A connection with the device open.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

/// Opens the device behind a connection.
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
        if reply.errno != 0 && reply.len == 0 {
            return Err(Refusal::Errno(reply.errno));
        }
        if reply.errno != 0 || reply.len as usize != answer.len() {
            return Err(Refusal::Io(io::ErrorKind::InvalidData.into()));
        }
        self.0.read_exact(answer).map_err(Refusal::Io)?;
        Ok(reply.value)
    }

    fn ioctl(&mut self, number: u8, argument: &[u8], answer: &mut [u8]) -> Result<(), Refusal> {
        self.request(Op::Ioctl, number.into(), argument, answer)?;
        Ok(())
    }
}

impl Transport for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        Ok(self.request(Op::Write, 0, bytes, &mut [])? as usize)
    }

    fn commit(&mut self) -> Result<(), Refusal> {
        self.ioctl(NR_COMMIT, &[], &mut [])
    }

    fn unload(&mut self) -> Result<(), Refusal> {
        self.ioctl(NR_UNLOAD, &[], &mut [])
    }

    fn target(&mut self, mut target: Target) -> Result<(), Refusal> {
        let sent = target;
        self.ioctl(NR_TARGET, sent.as_bytes(), target.as_mut_bytes())
    }

    fn status(&mut self) -> Result<Status, Refusal> {
        let mut status = Status::new_zeroed();
        self.ioctl(NR_STATUS, &[], status.as_mut_bytes())?;
        Ok(status)
    }

    fn lookup(&mut self, question: Lookup) -> Result<Lookup, Refusal> {
        let mut answer = question;
        self.ioctl(NR_LOOKUP, question.as_bytes(), answer.as_mut_bytes())?;
        Ok(answer)
    }
}
