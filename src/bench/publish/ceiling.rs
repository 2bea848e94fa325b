//! To the ceiling program.

use std::{io::Write as _, net::TcpStream};

use broadgate::failure::Failure;

use crate::{
    ceiling::record,
    engine::{now_ns, payload},
    publish::to::{Publisher, To},
};

pub(super) struct Ceiling<'a> {
    to: To<'a>,
    stream: TcpStream,
    out: Vec<u8>,
}

impl<'a> Ceiling<'a> {
    pub(super) fn open(to: To<'a>) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(to.target.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(b"GET /publish HTTP/1.1\r\n\r\n")?;
        Ok(Self { to, stream, out: Vec::new() })
    }
}

impl Publisher for Ceiling<'_> {
    fn batch_max(&self) -> u64 {
        64
    }

    fn publish(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Failure> {
        self.out.clear();
        for number in numbers {
            let payload = payload::bytes(self.to.size, number, now_ns());
            record(&mut self.out, self.to.group(number), &payload);
        }
        self.stream.write_all(&self.out)?;
        Ok(())
    }
}
