//! Debuginfod: what is in no directory comes from the servers that are named.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::search::{BUILD_ID, DEMO, Home, decoded, kept_name, log};

/// A server on loopback that gives one answer to everything.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` is status line, headers and body; without one the server never answers.
    fn new(answer: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                requests.lock().expect("no panic").push(request(&stream));
                match &answer {
                    // Who has enough does not read on.
                    Some(answer) => drop(stream.write_all(answer)),
                    None => held.push(stream),
                }
            }
        });
        Self {
            url: format!("http://{address}"),
            asked,
        }
    }

    fn with_status(status: &str) -> Self {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        Self::new(Some(answer.into_bytes()))
    }

    fn with_file(file: &[u8], len: usize) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
        Self::new(Some([head.as_bytes(), file].concat()))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// What is asked for.
fn request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().expect("a request").expect("text");
    lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .for_each(drop);
    first
}

fn demo() -> Vec<u8> {
    std::fs::read(DEMO).expect("the image")
}

/// Decodes a log with the servers.
fn decode(home: &Home, servers: &[&str]) -> (String, i32, String) {
    let variables = [
        ("DEBUGINFOD_URLS", servers.join(" ")),
        ("DEBUGINFOD_TIMEOUT", "1".to_owned()),
    ];
    home.decode_with(&variables, &[], &log())
}

#[test]
fn a_server_has_what_no_directory_has_and_is_asked_once() {
    let home = Home::new();
    let (none, broken) = (
        Server::with_status("404 Not Found"),
        Server::with_status("500 Oh"),
    );
    let file = demo();
    let server = Server::with_file(&file, file.len());
    // A path before the protocol's, and a slash at the end.
    let url = format!("{}/debug/", server.url);
    let servers = ["ima:enforcing", &none.url, &broken.url, &url];
    let (out, status, said) = decode(&home, &servers);
    assert_eq!((out, status), (decoded(), 0), "{said}");
    let path = format!("/buildid/{BUILD_ID}/debuginfo");
    assert_eq!(none.asked(), [format!("GET {path} HTTP/1.1")]);
    assert_eq!(server.asked(), [format!("GET /debug{path} HTTP/1.1")]);
    // Who does not have it is not at fault.
    assert!(said.contains(&format!("{}{path}: ", broken.url)), "{said}");
    assert!(!said.contains(&none.url), "{said}");
    // The table is kept, and nothing else.
    assert_eq!(home.kept(), [kept_name()]);
    let (out, status, said) = decode(&home, &servers);
    assert_eq!(
        (out, status, server.asked().len()),
        (decoded(), 0, 1),
        "{said}"
    );
}

#[test]
fn what_a_server_sends_is_not_trusted() {
    let file = demo();
    let mut other = file.clone();
    let id: [u8; 4] = [0x01, 0x23, 0x45, 0x67];
    let at = other.windows(4).position(|bytes| bytes == id);
    other[at.expect("a build-id")] ^= 1;
    for (server, expected) in [
        (
            Server::with_file(&other, other.len()),
            "it is of another build-id",
        ),
        (Server::with_file(b"<html>", 6), "<html>"),
        (Server::with_file(&[], 0), "an empty file"),
        (Server::with_file(&file[..1000], file.len()), ""),
        (Server::with_status("503 Busy"), "503"),
        (Server::new(None), "timeout"),
    ] {
        let home = Home::new();
        let start = Instant::now();
        let (out, status, said) = decode(&home, &[&server.url]);
        assert_eq!((out.as_str(), status), ("", 1), "{said}");
        assert!(said.contains(&server.url), "{said}");
        if expected != "<html>" {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{said}");
        assert!(said.contains("no vmlinux of 6.1.0 in"), "{said}");
        let is_kept = home.kept().contains(&kept_name());
        assert!(!is_kept, "{said}");
    }
}

#[test]
fn servers_that_cannot_be_asked() {
    let home = Home::new();
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr();
    let closed = format!("http://{}", closed.expect("an address"));
    let (_, status, said) = decode(&home, &[&closed, "gopher://x"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(&format!("{closed}/buildid/")), "{said}");
    assert!(said.contains("gopher://x/buildid/"), "{said}");
    if cfg!(not(feature = "tls")) {
        let (_, status, said) = decode(&home, &["https://127.0.0.1:1"]);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("built without TLS"), "{said}");
    }
}

#[test]
fn what_is_in_a_directory_is_not_asked_for() {
    let home = Home::new();
    home.put("dir/vmlinux");
    let server = Server::with_status("404 Not Found");
    let variables = [("DEBUGINFOD_URLS", server.url.clone())];
    let (out, status, said) = home.decode_with(&variables, &["--dir", &home.path("dir")], &log());
    assert_eq!((out, status), (decoded(), 0), "{said}");
    assert_eq!(server.asked(), [""; 0]);
}

/// A process that ends with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The server of elfutils, which `.ci/run` installs.
#[test]
fn the_server_of_elfutils() {
    if std::env::var_os("LINEINFO_DEBUGINFOD").is_none() {
        eprintln!(
            "skipped: set LINEINFO_DEBUGINFOD=1 where Debian's package debuginfod is installed"
        );
        return;
    }
    let home = Home::new();
    home.put("served/demo.debug");
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let child = Command::new("debuginfod")
        .args(["-F", "-p", &port.to_string(), "-d", ":memory:"])
        .arg(home.path("served"))
        .env_remove("DEBUGINFOD_URLS")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _guard = Guard(child.expect("debuginfod"));
    let url = format!("http://127.0.0.1:{port}");
    let start = Instant::now();
    loop {
        let (out, status, said) = decode(&home, &[&url]);
        if status == 0 {
            assert_eq!(out, decoded());
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(home.kept(), [kept_name()]);
}
