//! A client of the socket, by the protocol of [`lineinfo_core::uapi::socket`].

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use lineinfo_core::Address;
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, Reply, Request};
use lineinfo_core::uapi::{Errno, Ioctl, Lookup, Status};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::{PAUSE, TIMEOUT};

/// A connection to the socket. An error is the number of the errno in the reply.
///
/// # Panics
///
/// Its functions panic if the kernel does not keep to the protocol, or does not answer in time.
#[derive(Debug)]
pub struct Client(pub UnixStream);

impl Client {
    /// A new connection, nothing opened yet.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the socket accepts");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        Self(stream)
    }

    /// A connection with the device open for loading.
    ///
    /// A child that another test starts has the connections of this process until it executes its
    /// program, so the last loader may seem to be there a moment longer.
    pub fn loader(socket: &Path) -> Self {
        let end = Instant::now() + TIMEOUT;
        loop {
            let mut client = Self::connect(socket);
            match client.open(OPEN_READ | OPEN_WRITE) {
                Err(errno) if errno == Errno::EBUSY.number() && Instant::now() < end => {
                    thread::sleep(PAUSE);
                }
                opened => {
                    opened.expect("open for writing");
                    return client;
                }
            }
        }
    }

    /// Makes a request; returns the value and the payload of the reply.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn request(&mut self, op: u32, arg: u32, payload: &[u8]) -> Result<(u32, Vec<u8>), u32> {
        let len = u32::try_from(payload.len()).expect("a small payload");
        let request = Request { op, arg, len };
        self.0
            .write_all(&[request.as_bytes(), payload].concat())
            .expect("it listens");
        self.reply()
    }

    /// Reads a reply.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn reply(&mut self) -> Result<(u32, Vec<u8>), u32> {
        let mut reply = Reply::new_zeroed();
        self.0.read_exact(reply.as_mut_bytes()).expect("it answers");
        let mut payload = vec![0; reply.len as usize];
        self.0.read_exact(&mut payload).expect("it answers");
        match reply.error {
            0 => Ok((reply.value, payload)),
            errno => Err(errno),
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn open(&mut self, flags: u32) -> Result<(), u32> {
        self.request(Op::Open.number(), flags, &[]).map(drop)
    }

    /// Writes in one request, and checks that all was taken.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), u32> {
        let (taken, _) = self.request(Op::Write.number(), 0, bytes)?;
        assert_eq!(taken as usize, bytes.len());
        Ok(())
    }

    /// Writes in pieces of the largest size.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), u32> {
        bytes
            .chunks(64 * 1024)
            .try_for_each(|piece| self.write(piece))
    }

    /// Makes a request of the device; returns what came back of the argument.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn ioctl(&mut self, request: Ioctl, argument: &[u8]) -> Result<Vec<u8>, u32> {
        let (_, payload) = self.request(Op::Ioctl.number(), request.code(), argument)?;
        Ok(payload)
    }

    /// Asks whether what was written is live.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn commit(&mut self) -> Result<(), u32> {
        self.ioctl(Ioctl::Commit, &[]).map(drop)
    }

    /// Empties the slot.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn unload(&mut self) -> Result<(), u32> {
        self.ioctl(Ioctl::Unload, &[]).map(drop)
    }

    /// The status.
    pub fn status(&mut self) -> Status {
        let bytes = self.ioctl(Ioctl::Status, &[]).expect("the status");
        Status::read_from_bytes(&bytes).expect("a status")
    }

    /// Looks up a return address.
    pub fn lookup_return_address(&mut self, address: u64) -> Lookup {
        let question = Lookup::new(Address::Return(address));
        let bytes = self
            .ioctl(Ioctl::Lookup, question.as_bytes())
            .expect("an answer");
        Lookup::read_from_bytes(&bytes).expect("an answer")
    }

    /// Reads the text of the device from a position, in bytes.
    ///
    /// # Errors
    ///
    /// The errno of the reply.
    pub fn read(&mut self, at: u32) -> Result<Vec<u8>, u32> {
        self.request(Op::Read.number(), at, &[])
            .map(|(_, text)| text)
    }
}
