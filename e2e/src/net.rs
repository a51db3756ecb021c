//! Asking a web server of the cluster's from this machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long one request may take. Short: a packet that is dropped shows as this.
const REQUEST_LIMIT: Duration = Duration::from_secs(3);

/// The body of `GET /`, without the end's white space.
pub fn get(address: &str) -> Result<String, String> {
    request(address).map_err(|error| format!("{address}: {error}"))
}

fn request(address: &str) -> Result<String, std::io::Error> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_LIMIT)?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    // HTTP/1.0: the answer ends with the connection.
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.trim_end().to_owned()),
        _ => Err(std::io::Error::other(format!("answered {answer:?}"))),
    }
}

/// Whether a connection is refused, as opposed to answered or dropped.
pub fn refused(address: &str) -> Result<(), String> {
    let socket: SocketAddr = address
        .parse()
        .map_err(|error| format!("{address}: {error}"))?;
    match TcpStream::connect_timeout(&socket, REQUEST_LIMIT) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{address}: {other:?}")),
    }
}
