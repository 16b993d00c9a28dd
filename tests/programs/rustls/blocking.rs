//! A thread for each connection, and a stream that does its own reading and writing.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::{Load, Outcome, Site};

pub fn client(load: &Load) -> Outcome<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..load.connections).map(|n| scope.spawn(move || one_client(load, n))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client failed")?)
    })
}

fn one_client(load: &Load, number: usize) -> Outcome<()> {
    let socket = TcpStream::connect(("127.0.0.1", load.port))?;
    let local = socket.local_addr()?.port();
    let tls = ClientConnection::new(load.tls.clone(), "localhost".try_into()?)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, socket));
    for request in 0..load.requests {
        let (path, size) = load.path(number, request, local);
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes())?;
        let length = head_of(&mut stream)?.1;
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        if body.len() != size {
            return Err(format!("{path}: {}", body.len()).into());
        }
        println!("{path}");
    }
    Ok(())
}

/// The first line of a message, and the length of its body.
fn head_of(stream: &mut BufReader<impl Read>) -> Outcome<(String, usize)> {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end() {
            "" => return Ok((first, length)),
            text if first.is_empty() => first = text.to_owned(),
            text => {
                if let Some((_, value)) = text.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case("content-length"))
                {
                    length = value.trim().parse()?;
                }
            }
        }
    }
}

pub fn server(site: &Site) -> Outcome<()> {
    let listener = TcpListener::bind(("127.0.0.1", site.port))?;
    loop {
        let (socket, _) = listener.accept()?;
        let site = site.clone();
        // A client that goes away ends its own thread only.
        std::thread::spawn(move || one_server(&site, socket));
    }
}

fn one_server(site: &Site, socket: TcpStream) -> Outcome<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(site.tls.clone())?, socket));
    loop {
        let (first, _) = head_of(&mut stream)?;
        let Some(path) = first.split(' ').nth(1) else { return Ok(()) };
        let (status, body) = site.read(path).map_or((404, Vec::new()), |body| (200, body));
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(&body)?;
    }
}
