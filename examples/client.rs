//! A client in 60 lines: logs in, sends what is typed, prints what arrives.
//!
//!     cargo run --example client -- 127.0.0.1:6000 alice wonder
//!
//! A line `2 hello` goes to user 2. Whoever is not registered is registered first.
#![allow(clippy::print_stdout, reason = "that is where a client shows things")]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, password] = &args[..] else { return Err("give address, name and password".into()) };
    let mut server = TcpStream::connect(address)?;
    let mut answers = BufReader::new(server.try_clone()?).lines();
    // Errno 1 means that the name is taken; the login tells whether it is ours.
    send(&mut server, &json!({"msgid": 4, "name": name, "password": password}))?;
    next(&mut answers)?;
    send(&mut server, &json!({"msgid": 1, "name": name, "password": password}))?;
    let login = next(&mut answers)?;
    if login["errno"] != 0 {
        return Err(format!("not logged in: {}", login["errmsg"]).into());
    }
    // What was kept while nobody was logged in comes as strings that hold objects.
    for kept in login["offlinemsg"].as_array().into_iter().flatten() {
        show(&serde_json::from_str(kept.as_str().unwrap_or_default())?);
    }
    let reader = thread::spawn(move || {
        while let Ok(object) = next(&mut answers) {
            show(&object);
        }
    });
    for (count, line) in io::stdin().lines().map_while(Result::ok).enumerate() {
        let (to, text) = line.split_once(' ').ok_or("a line is a user's number and a text")?;
        // With a `seq`, one for each message, a chat is answered: errno 0 means that it is safe.
        let seq = format!("{}-{count}", std::process::id());
        send(&mut server, &json!({"msgid": 6, "toid": to.parse::<i64>()?, "msg": text, "seq": seq}))?;
    }
    // Whoever ends their side first still gets the answers.
    server.shutdown(Shutdown::Write)?;
    reader.join().map_err(|_| "the reader has panicked".into())
}
fn send(server: &mut TcpStream, object: &Value) -> io::Result<()> {
    server.write_all(format!("{object}\n").as_bytes())
}
fn next(answers: &mut Lines<BufReader<TcpStream>>) -> Result<Value, Box<dyn Error>> {
    let line = answers.next().ok_or("the server has ended the connection")??;
    Ok(serde_json::from_str(&line)?)
}
fn show(object: &Value) {
    match object["msgid"].as_i64() {
        Some(6 | 10) => println!("{}: {}", object["name"], object["msg"]),
        Some(20) => println!("goodbye: {} ({})", object["reason"], object["errmsg"]),
        _ => println!("{object}"),
    }
}
