//! Makes the seeds of the targets `blob`, `device` and `footer`:
//!
//! ```sh
//! cargo run --manifest-path fuzz/Cargo.toml --example seeds
//! ```

use std::error::Error;
use std::fs;
use std::path::Path;

use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_core::steps::craft;
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, Request};
use lineinfo_core::uapi::{AddressBase, Ioctl, Lookup, Target};
use lineinfo_core::writer::{
    Image, InlineChain, InlinedFunction, Inlines, Region, encode, encode_with_inlines,
};
use lineinfo_core::{Address, Row, footer};
use zerocopy::IntoBytes;

/// Largest crafted blob that is a seed, in bytes.
const CRAFTED_MAX: usize = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let directory = root.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), bytes)
    };

    for &encoding in Encoding::ALL {
        for &profile in Profile::ALL {
            let name = format!("{encoding}-{profile}");
            write("blob", &name, &table(&[0xab; 20], encoding, profile, 90)?)?;
        }
    }
    write("blob", "packed-inlines", &with_inlines()?)?;
    let small = table(&[0xab; 20], Encoding::Flat, Profile::Full, 3)?;
    write("blob", "small", &small)?;
    let empty = table(&[0xab; 20], Encoding::Delta, Profile::Full, 0)?;
    write("blob", "empty", &empty)?;
    let other = table(&[1; 20], Encoding::Flat, Profile::Full, 3)?;
    write("blob", "other-kernel", &other)?;
    for hostile in craft::all() {
        if hostile.blob.len() <= CRAFTED_MAX {
            let name = hostile
                .name
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            write("blob", &format!("crafted-{name}"), &hostile.blob)?;
        }
    }

    let image = [b"MZ".repeat(40), vec![7; 21]].concat();
    let (pad, raw) = footer::append(image.len() as u64, &empty).ok_or("a small blob")?;
    let appended = [b"\x05\x01", &*image, pad, &empty, raw.as_bytes()].concat();
    write("footer", "appended", &appended)?;
    let padded = [&*appended, &[0xff; 40]].concat();
    write("footer", "padded", &padded)?;
    let signature = [
        &[0x30; 60][..],
        &[0, 0, 2, 0, 0, 0, 0, 0],
        &60_u32.to_be_bytes(),
    ]
    .concat();
    let signature = [&*signature, b"~Module signature appended~\n"].concat();
    write("footer", "signed", &[&*appended, &signature].concat())?;
    write(
        "footer",
        "pe",
        &[&[0, 0], &*signed_pe(&appended[2..])].concat(),
    )?;

    for (name, messages) in messages(&small) {
        write("device", name, &messages.concat())?;
    }
    Ok(())
}

/// A table with a file in three names, and as much init text.
fn table(
    build_id: &[u8],
    encoding: Encoding,
    profile: Profile,
    count: u32,
) -> Result<Vec<u8>, Box<dyn Error>> {
    with_image(build_id, profile, count, |image| {
        Ok(encode(image, encoding)?)
    })
}

/// A packed table with up to two inlined functions at an address.
fn with_inlines() -> Result<Vec<u8>, Box<dyn Error>> {
    let function = |(name, file)| InlinedFunction::new(name, file, 39);
    let chain = |levels| InlineChain::new(0, levels);
    let functions = [("vfs_write", 0), ("do_open", 1), ("inode_lock", 2)];
    let inlines = Inlines {
        functions: functions.map(function).to_vec(),
        chains: vec![
            chain(&[(2, 60)]),
            chain(&[(1, 55), (2, 50)]),
            chain(&[(0, 41)]),
        ],
    };
    let chains_of = |rows: &[Row]| -> Vec<Option<u32>> {
        let chain = |row: &Row| (row.line != 0).then(|| row.start / 15 % 4);
        let chains = rows.iter().map(chain);
        chains
            .map(|chain| chain.filter(|chain| *chain < 3))
            .collect()
    };
    with_image(&[0xab; 20], Profile::Full, 90, |image| {
        let chains: Vec<_> = image
            .regions
            .iter()
            .map(|region| chains_of(region.rows))
            .collect();
        let chains: Vec<&[Option<u32>]> = chains.iter().map(Vec::as_slice).collect();
        Ok(encode_with_inlines(
            image,
            &inlines,
            &chains,
            Encoding::Packed,
        )?)
    })
}

fn with_image<T>(
    build_id: &[u8],
    profile: Profile,
    count: u32,
    then: impl FnOnce(&Image<'_>) -> T,
) -> T {
    let row = |row: u32| Row {
        start: row * 5,
        file: row / 7 % 3,
        line: if row % 11 == 10 {
            0
        } else {
            40 + row * 13 % 29
        },
    };
    let rows: Vec<Row> = (0..count).map(row).collect();
    let rows: Vec<Row> = rows
        .iter()
        .map(|row| {
            if row.line == 0 {
                Row { file: 0, ..*row }
            } else {
                *row
            }
        })
        .collect();
    let region = |name, start, init, rows| Region {
        name,
        start,
        len: 0x400,
        init,
        rows,
    };
    then(&Image {
        machine: 62,
        build_id,
        text_start: 0x100,
        profile,
        files: &["fs/read_write.c", "fs/open.c", "include/linux/fs.h"],
        exact_files: 3,
        regions: &[
            region(".text", 0, false, &rows),
            region(".init.text", 0x1000, true, &rows[..rows.len() / 2]),
        ],
    })
}

/// A PE32+ header whose certificates are after an image.
fn signed_pe(image: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x100];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x58..0x5a].copy_from_slice(&0x20b_u16.to_le_bytes());
    // The number of directories, then the directories.
    file[0x58 + 108] = 16;
    file.extend_from_slice(image);
    file.resize(file.len().next_multiple_of(8), 0);
    let at = 0x58 + 112 + 4 * 8;
    let start = file.len() as u32;
    file[at..at + 4].copy_from_slice(&start.to_le_bytes());
    file[at + 4..at + 8].copy_from_slice(&16_u32.to_le_bytes());
    file.extend_from_slice(&[1; 16]);
    file
}

/// A message of the target `device`.
fn message(kind: u8, file: u8, op: u32, arg: u32, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    let request = Request { op, arg, len };
    [&[kind << 4 | file], request.as_bytes(), payload].concat()
}

fn messages(blob: &[u8]) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let request = |file, op: Op, arg, payload: &[u8]| message(0, file, op.number(), arg, payload);
    let ioctl = |file, request: Ioctl, argument: &[u8]| {
        message(0, file, Op::Ioctl.number(), request.code(), argument)
    };
    let beside = |kind, file, arg| message(kind, file, 0, arg, &[]);
    let open = |file| request(file, Op::Open, OPEN_READ | OPEN_WRITE, &[]);
    let question = Lookup::new(Address::Exact(0x1105));
    let at_level = |level| {
        let lookup = Lookup::from_base(Address::Return(0x13), AddressBase::Text);
        Lookup { level, ..lookup }
    };
    let module = Target::module("xor").unwrap_or_default();
    vec![
        (
            "load",
            vec![
                open(0),
                request(0, Op::Write, 0, &blob[..100]),
                request(0, Op::Write, 0, &blob[100..]),
                ioctl(0, Ioctl::Commit, &[]),
                ioctl(0, Ioctl::Lookup, question.as_bytes()),
                request(0, Op::Read, OPEN_READ, &[]),
                ioctl(0, Ioctl::Unload, &[]),
                beside(1, 0, 0),
            ],
        ),
        (
            "module",
            vec![
                open(1),
                ioctl(1, Ioctl::Target, module.as_bytes()),
                beside(6, 1, 5000),
                ioctl(1, Ioctl::Status, &[]),
                ioctl(1, Ioctl::Abort, &[]),
                ioctl(1, Ioctl::Target, Target::default().as_bytes()),
                beside(7, 1, 5000),
            ],
        ),
        (
            "levels",
            vec![
                open(0),
                beside(6, 0, 5000),
                request(3, Op::Open, OPEN_READ, &[]),
                ioctl(3, Ioctl::Lookup, at_level(0).as_bytes()),
                ioctl(3, Ioctl::Lookup, at_level(1).as_bytes()),
                ioctl(0, Ioctl::Abort, &[]),
                beside(5, 0, 5000),
                ioctl(3, Ioctl::Lookup, at_level(2).as_bytes()),
            ],
        ),
        (
            "taken-over",
            vec![
                open(0),
                beside(5, 0, 150),
                open(1),
                beside(2, 0, 30_000),
                open(1),
                beside(5, 0, 500),
                beside(6, 1, 5000),
                beside(4, 0, 0),
                request(3, Op::Open, OPEN_READ, &[]),
                ioctl(3, Ioctl::Status, &[]),
                ioctl(3, Ioctl::Lookup, question.as_bytes()),
            ],
        ),
        (
            "faults",
            vec![
                open(2),
                beside(6, 2, 5000),
                ioctl(2, Ioctl::Abort, &[]),
                beside(3, 0, 3),
                beside(6, 2, 200),
                request(2, Op::Read, 0, &[]),
                beside(6, 2, 5000),
                request(3, Op::Open, OPEN_WRITE, &[]),
            ],
        ),
    ]
}
