//! The frames of SPDY/3.1 that the opener of streams writes and reads
//! (the protocol's draft 3.1, section 2.6).
//!
//! Headers are written in zlib's stored form: every reader of SPDY understands it, and it
//! needs no compressor. What comes back in headers is of no interest to who opened the
//! streams, so nothing is ever decompressed. Windows are not heeded, as no peer (`spdystream`)
//! heeds them.
//!
//! What must not be here: what the streams carry.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

const VERSION: u16 = 0x8003;
const HEADER: usize = 8;

/// The largest payload of a data frame that is written, in bytes; frames say their length in
/// 24 bits.
pub const MAX_DATA: usize = 0xff_ffff;
/// What a peer may send in one frame, in bytes. Upstream's peers write what they read at once.
const MAX_FRAME: usize = 0xff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

const FIN: u8 = 1;

/// A frame that was read. Streams are meant by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Data {
        stream: u32,
        data: Bytes,
        /// The peer sends nothing more on the stream.
        is_last: bool,
    },
    /// The stream is accepted.
    Reply {
        stream: u32,
        is_last: bool,
    },
    /// The stream is refused or broken off.
    Reset {
        stream: u32,
    },
    Ping(u32),
    /// The peer takes no new streams.
    GoAway,
    /// A frame that changes nothing for who opened the streams.
    Other,
}

fn control(kind: u16, flags: u8, length: usize, out: &mut BytesMut) {
    out.put_u16(VERSION);
    out.put_u16(kind);
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}

/// Writes frames, each in its turn: headers are one compressed stream per connection.
#[derive(Debug, Default)]
pub struct Writer {
    begun: bool,
}

impl Writer {
    /// Opens a stream. Numbers are odd and grow.
    pub fn open(&mut self, stream: u32, headers: &[(&str, &str)], out: &mut BytesMut) {
        let mut block = BytesMut::new();
        block.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text.as_bytes());
            }
        }
        let mut packed = BytesMut::new();
        if !std::mem::replace(&mut self.begun, true) {
            // The method, and that no dictionary is used.
            packed.put_slice(&[0x78, 0x01]);
        }
        let length = u16::try_from(block.len()).expect("headers of streams are a few words");
        packed.put_u8(0);
        packed.put_u16_le(length);
        packed.put_u16_le(!length);
        packed.put_slice(&block);
        // An empty block, so that a reader passes on what came before.
        packed.put_slice(&[0, 0, 0, 0xff, 0xff]);

        control(SYN_STREAM, 0, 10 + packed.len(), out);
        out.put_u32(stream);
        out.put_u32(0);
        out.put_u16(0);
        out.put_slice(&packed);
    }
}

/// Writes what goes on a stream, in as many frames as it takes.
pub fn data(stream: u32, mut data: &[u8], out: &mut BytesMut) {
    while !data.is_empty() {
        let (now, later) = data.split_at(data.len().min(MAX_DATA));
        out.put_u32(stream);
        out.put_u8(0);
        out.put_uint(now.len() as u64, 3);
        out.put_slice(now);
        data = later;
    }
}

/// Says that nothing more goes on a stream.
pub fn end(stream: u32, out: &mut BytesMut) {
    out.put_u32(stream);
    out.put_u8(FIN);
    out.put_uint(0, 3);
}

pub fn ping(id: u32, out: &mut BytesMut) {
    control(PING, 0, 4, out);
    out.put_u32(id);
}

/// Takes a frame from the front of `read`; `None` when it is not there to its end yet.
///
/// # Errors
/// The peer does not speak SPDY/3.
pub fn decode(read: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(header) = read.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [a, b, c, d, flags, length @ ..] = *header;
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::other("a SPDY frame is too long"));
    }
    if read.len() < HEADER + length {
        read.reserve(HEADER + length - read.len());
        return Ok(None);
    }
    read.advance(HEADER);
    let mut payload = read.split_to(length).freeze();
    let is_last = flags & FIN != 0;
    let first = u16::from_be_bytes([a, b]);
    if first & 0x8000 == 0 {
        return Ok(Some(Frame::Data {
            stream: u32::from_be_bytes([a, b, c, d]),
            data: payload,
            is_last,
        }));
    }
    if first != VERSION {
        return Err(io::Error::other("the peer does not speak SPDY/3"));
    }
    let kind = u16::from_be_bytes([c, d]);
    if matches!(kind, SYN_REPLY | RST_STREAM | PING) && payload.len() < 4 {
        return Err(io::Error::other("a SPDY frame is too short"));
    }
    Ok(Some(match kind {
        SYN_REPLY => Frame::Reply {
            stream: payload.get_u32(),
            is_last,
        },
        RST_STREAM => Frame::Reset {
            stream: payload.get_u32(),
        },
        PING => Frame::Ping(payload.get_u32()),
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    }))
}

/// Reads frames from a connection.
pub struct Reader<R> {
    connection: R,
    read: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(connection: R) -> Self {
        let read = BytesMut::with_capacity(32 * 1024);
        Reader { connection, read }
    }

    /// The next frame; `None` when the peer has closed the connection between two frames.
    ///
    /// # Errors
    /// The connection broke, or what came is no SPDY.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = decode(&mut self.read)? {
                return Ok(Some(frame));
            }
            if self.connection.read_buf(&mut self.read).await? == 0 {
                if self.read.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_opened_with_headers_in_stored_blocks() {
        let mut out = BytesMut::new();
        let mut writer = Writer::default();
        writer.open(1, &[("streamtype", "error")], &mut out);
        let first = [
            &[0x80, 3, 0, 1, 0, 0, 0, 49][..],
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            &[0x78, 0x01, 0, 27, 0, !27, 0xff],
            &[0, 0, 0, 1, 0, 0, 0, 10],
            b"streamtype",
            &[0, 0, 0, 5],
            b"error",
            &[0, 0, 0, 0xff, 0xff],
        ]
        .concat();
        assert_eq!(out, first);
        // Only the first block begins the compressed stream.
        let before = out.len();
        writer.open(3, &[("streamtype", "stdin")], &mut out);
        assert_eq!(out.len() - before, before - 2);
    }

    #[test]
    fn frames_are_read_as_they_come_in() {
        let mut wire = BytesMut::new();
        control(SYN_REPLY, 0, 8, &mut wire);
        wire.put_slice(&[0, 0, 0, 5, 0, 0, 0, 0]);
        data(5, b"hello", &mut wire);
        end(5, &mut wire);
        ping(2, &mut wire);
        control(RST_STREAM, 0, 8, &mut wire);
        wire.put_slice(&[0, 0, 0, 3, 0, 0, 0, 5]);
        control(4, 0, 0, &mut wire);

        let mut read = BytesMut::new();
        let mut frames = Vec::new();
        for byte in wire {
            read.put_u8(byte);
            frames.extend(decode(&mut read).unwrap());
        }
        let hello = Bytes::from_static(b"hello");
        let of = |data, is_last| Frame::Data {
            stream: 5,
            data,
            is_last,
        };
        let reply = Frame::Reply {
            stream: 5,
            is_last: false,
        };
        let want = [
            reply,
            of(hello, false),
            of(Bytes::new(), true),
            Frame::Ping(2),
            Frame::Reset { stream: 3 },
            Frame::Other,
        ];
        assert_eq!(frames, want);
        assert!(read.is_empty());
    }

    #[test]
    fn another_protocol_is_noticed() {
        let mut http = BytesMut::from(&b"\x80\x02\x00\x01\x00\x00\x00\x00"[..]);
        assert!(decode(&mut http).is_err());
    }
}
