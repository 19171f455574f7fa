//! Unix sockets of the standard library: pairs, names in the file system, datagrams.

use crate::{Result, pattern};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::thread;

pub fn run() -> Result<()> {
    pair()?;
    listener()?;
    abstract_name()?;
    datagrams()?;
    Ok(())
}

fn pair() -> Result<()> {
    let (mut a, mut b) = UnixStream::pair()?;
    let sent = pattern(5, 1 << 20);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        a.write_all(&copy)
            .and_then(|()| a.shutdown(Shutdown::Write))
            .map(|()| a)
    });
    let mut got = Vec::new();
    b.read_to_end(&mut got)?;
    println!("pair: {} bytes, same {}", got.len(), got == sent);
    drop(writer.join().expect("writer")?);
    println!("write to nobody: {:?}", b.write(b"x").unwrap_err().kind());
    Ok(())
}

fn listener() -> Result<()> {
    const PATH: &str = "/tmp/unik-example.sock";
    let _ = fs::remove_file(PATH);
    let listener = UnixListener::bind(PATH)?;
    println!(
        "a socket in the file system: {}",
        fs::metadata(PATH)?.file_type().is_socket()
    );
    println!(
        "bound twice: {:?}",
        UnixListener::bind(PATH).unwrap_err().kind()
    );
    let server = thread::spawn(move || -> Result<()> {
        for _ in 0..3 {
            let (mut stream, from) = listener.accept()?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            write!(
                stream,
                "{} from {}",
                text.to_uppercase(),
                if from.is_unnamed() {
                    "nobody"
                } else {
                    "a name"
                }
            )?;
        }
        Ok(())
    });
    for word in ["one", "two", "three"] {
        let mut stream = UnixStream::connect(PATH)?;
        stream.write_all(word.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        println!("{answer}; peer {:?}", stream.peer_addr()?.as_pathname());
    }
    server.join().expect("server")?;
    println!(
        "nobody listens: {:?}",
        UnixStream::connect(PATH).unwrap_err().kind()
    );
    fs::remove_file(PATH)?;
    println!(
        "no such name: {:?}",
        UnixStream::connect(PATH).unwrap_err().kind()
    );
    Ok(())
}

fn abstract_name() -> Result<()> {
    let name = SocketAddr::from_abstract_name("unik-example")?;
    let listener = UnixListener::bind_addr(&name)?;
    let mut client = UnixStream::connect_addr(&name)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"abstract")?;
    let mut bytes = [0; 8];
    server.read_exact(&mut bytes)?;
    println!(
        "{}: {:?}",
        String::from_utf8_lossy(&bytes),
        client
            .peer_addr()?
            .as_abstract_name()
            .map(String::from_utf8_lossy)
    );
    Ok(())
}

fn datagrams() -> Result<()> {
    const PATH: &str = "/tmp/unik-example-datagrams.sock";
    let _ = fs::remove_file(PATH);
    let receiver = UnixDatagram::bind(PATH)?;
    let sender = UnixDatagram::unbound()?;
    for word in ["first", "second"] {
        sender.send_to(word.as_bytes(), PATH)?;
    }
    let mut buffer = [0; 4];
    for _ in 0..2 {
        let (len, from) = receiver.recv_from(&mut buffer)?;
        println!(
            "datagram {}, from nobody {}",
            String::from_utf8_lossy(&buffer[..len]),
            from.is_unnamed()
        );
    }
    fs::remove_file(PATH)?;
    Ok(())
}
