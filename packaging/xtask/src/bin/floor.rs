//! The floor of `cargo xtask bench`: opens and reads every file of a list once, and nothing else.
//!
//! `floor LIST`, where LIST is a file with one path a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, Read};

fn main() -> Result<(), Error> {
    let list = std::env::args_os().nth(1).ok_or_else(|| Error::other("usage: floor LIST"))?;
    let mut buffer = vec![0; 64 << 10];
    for path in BufReader::new(File::open(list)?).lines() {
        let mut file = File::open(path?)?;
        // A read that leaves room was the last one.
        while file.read(&mut buffer)? == buffer.len() {}
    }
    Ok(())
}
