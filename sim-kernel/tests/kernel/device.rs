//! The device: its file semantics, its errors, and bad input.

use std::io::{Read, Write};

use lineinfo_core::blob::Encoding;
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE, Op, PAYLOAD_MAX, Request};
use lineinfo_core::uapi::{Errno, Ioctl, LOOKUP_FOUND, Lookup, State};
use lineinfo_core::{Address, writer};
use zerocopy::{FromBytes, IntoBytes};

use crate::support::{Client, Image, Kernel};

fn errno<T>(errno: Errno) -> Result<T, u32> {
    Err(errno.number())
}

#[test]
fn load_look_up_unload() {
    let image = Image::read();
    let blob = image.blob(Encoding::Delta);
    let mut kernel = Kernel::boot(&[]);
    let status = kernel.status();
    assert_eq!(status.state, State::Empty.number());
    assert_eq!(
        status.build_id(),
        image.build_id,
        "the one that a table must have"
    );

    kernel.load(&blob).expect("load");
    let status = kernel.status();
    assert_eq!(status.state, State::Loaded.number());
    assert_eq!(status.bytes, blob.len() as u64);
    assert_eq!(status.rows as usize, image.functions.len());
    assert_eq!((status.files, status.last_errno), (1, 0));

    // A function at its run-time address, as the kernel names it.
    let symbols = kernel.output_of("cat /proc/kallsyms");
    let start = symbols.iter().find_map(|line| {
        let (address, name) = line.split_once(' ')?;
        name.ends_with(" sim_kernel::fs::read_write::vfs_write")
            .then(|| u64::from_str_radix(address, 16).expect("hex"))
    });
    let start = start.expect("a function of the kernel");
    let line = image
        .line_of("sim_kernel::fs::read_write::vfs_write")
        .expect("a line");
    let mut client = kernel.connect();
    client.open(OPEN_READ).expect("open");
    let answer = client.lookup_return_address(start + 1);
    assert_eq!((answer.result, answer.file()), (LOOKUP_FOUND, "sim.rs"));
    assert_eq!(answer.line as usize, line);
    let answer = client.lookup_return_address(start);
    assert_ne!(
        answer.line as usize, line,
        "the call before it is another function's"
    );
    for address in [0, 1, u64::MAX] {
        assert_eq!(client.lookup_return_address(address).result, 0);
    }

    let text = String::from_utf8(client.read(0).expect("read")).expect("UTF-8");
    assert!(text.starts_with("state: loaded\n"), "{text}");
    assert_eq!(client.read(7).expect("read"), &text.as_bytes()[7..]);
    assert_eq!(client.read(u32::MAX).expect("the end"), b"");
    assert_eq!(
        kernel.output_of("cat /dev/lineinfo"),
        text.lines().collect::<Vec<_>>()
    );

    let mut loader = kernel.loader();
    loader.unload().expect("unload");
    assert_eq!(loader.unload(), errno(Errno::ENODATA));
    let question = Lookup::new(Address::Exact(start));
    assert_eq!(
        client.ioctl(Ioctl::Lookup, question.as_bytes()),
        errno(Errno::ENODATA)
    );
}

#[test]
fn pieces_of_any_size() {
    let blob = Image::read().blob(Encoding::Flat);
    let kernel = Kernel::boot(&[]);
    for size in [1, 7, 95, 96, 97, 4096, 65536] {
        let mut loader = kernel.loader();
        // Small pieces for the header, where they matter; then large ones.
        let (head, rest) = blob.split_at(300);
        for piece in head.chunks(size) {
            loader.write(piece).expect("a piece");
        }
        assert_eq!(loader.write(&[]), Ok(()));
        loader.write_all(rest).expect("the rest");
        // Live with the last byte; commit has nothing left to do.
        assert_eq!(kernel.status().state, State::Loaded.number());
        loader.commit().expect("commit");
        loader.commit().expect("once more");
        assert_eq!(loader.write(b"x"), errno(Errno::EINVAL));
        loader.unload().expect("unload");
    }
}

#[test]
fn one_writer_at_a_time() {
    let blob = Image::read().blob(Encoding::Flat);
    let mut kernel = Kernel::boot(&[]);
    let mut first = kernel.loader();
    first.write(&blob[..1000]).expect("a part");
    let mut second = kernel.connect();
    assert_eq!(second.open(OPEN_WRITE), errno(Errno::EBUSY));
    second.open(OPEN_READ).expect("reading is not exclusive");
    assert_eq!(second.write(b"x"), errno(Errno::EBADF));
    assert_eq!(second.commit(), errno(Errno::EBADF));
    assert_eq!(second.unload(), errno(Errno::EBADF));
    first
        .write_all(&blob[1000..])
        .expect("the first is not disturbed");
    first.commit().expect("live");
    let line = kernel.wait_for("open refused: somebody else has the device open for writing");
    assert!(line.ends_with("-EBUSY"), "{line}");
    assert_eq!(kernel.status().last_errno, 0, "it was about no slot");
}

#[test]
fn a_loader_that_dies_half_way_leaves_all_as_it_was() {
    let image = Image::read();
    let (old, new) = (image.blob(Encoding::Flat), image.blob(Encoding::Delta));
    let mut kernel = Kernel::boot(&[]);
    kernel.load(&old).expect("load");
    for len in [1, 95, 96, 97, new.len() - 1] {
        let mut loader = kernel.loader();
        loader.write_all(&new[..len]).expect("a part");
        drop(loader);
        let line = kernel.wait_for("before the end: discarded");
        assert!(line.contains(&format!("after {len} bytes")), "{line}");
        assert_eq!(kernel.status().bytes, old.len() as u64);
    }
    // In the middle of a request, too.
    let mut loader = kernel.loader();
    let request = Request {
        op: Op::Write.number(),
        arg: 0,
        len: 1000,
    };
    loader.0.write_all(request.as_bytes()).expect("it listens");
    loader.0.write_all(&new[..10]).expect("it listens");
    drop(loader);
    kernel.load(&new).expect("the next one can load");
    assert_eq!(kernel.status().bytes, new.len() as u64);
}

#[test]
fn a_load_that_is_aborted_can_begin_again() {
    let image = Image::read();
    let (first, second) = (image.blob(Encoding::Flat), image.blob(Encoding::Delta));
    let mut kernel = Kernel::boot(&[]);
    let mut loader = kernel.loader();
    loader.write(&first[..5000]).expect("a part");
    loader.ioctl(Ioctl::Abort, &[]).expect("abort");
    kernel.wait_for("aborted after 5000 bytes, before the end: discarded");
    assert_eq!(loader.write(&[b'x'; 96]), errno(Errno::ENOEXEC));
    loader.ioctl(Ioctl::Abort, &[]).expect("after a refusal");
    loader.write_all(&second).expect("another one");
    loader.commit().expect("it is loaded");
    assert_eq!(kernel.status().bytes, second.len() as u64);
    let mut reader = kernel.connect();
    reader.open(OPEN_READ).expect("open");
    assert_eq!(reader.ioctl(Ioctl::Abort, &[]), errno(Errno::EBADF));
}

#[test]
fn a_loader_that_stops_loses_the_device_to_the_next() {
    let blob = Image::read().blob(Encoding::Flat);
    let mut kernel = Kernel::boot(&["lineinfo.timeout=1"]);
    let mut stopped = kernel.loader();
    stopped.write(&blob[..5000]).expect("a part");
    let mut second = kernel.connect();
    assert_eq!(second.open(OPEN_WRITE), errno(Errno::EBUSY));
    // It tries again until the time has come.
    let mut second = kernel.loader();
    let line = kernel.wait_for("takes the device over");
    assert!(line.ends_with("; 5000 bytes discarded"), "{line}");
    assert_eq!(stopped.write(&blob[5000..6000]), errno(Errno::ETIMEDOUT));
    assert_eq!(stopped.commit(), errno(Errno::ETIMEDOUT));
    assert_eq!(stopped.unload(), errno(Errno::ETIMEDOUT));
    second.write(&blob[..5000]).expect("a part");
    drop(stopped);
    second.write_all(&blob[5000..]).expect("the rest");
    second.commit().expect("it is loaded");
}

#[test]
fn every_refusal_has_its_errno_and_reason_and_leaves_the_old_table() {
    let image = Image::read();
    let good = image.blob(Encoding::Delta);
    let mut kernel = Kernel::boot(&["lineinfo.max=2M"]);
    kernel.load(&good).expect("load");

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let mut magic = good.clone();
    magic[0] = 0x7f;
    let mut version = good.clone();
    version[8] = 99;
    writer::seal(&mut version);
    let mut malformed = good.clone();
    malformed[22] = 21;
    writer::seal(&mut malformed);
    let mut huge = good.clone();
    huge[12..16].copy_from_slice(&(2 * 1024 * 1024 + 1_u32).to_le_bytes());
    let mut tiny = good.clone();
    tiny[12..16].copy_from_slice(&59_u32.to_le_bytes());
    let mut short = good.clone();
    short[12..16].copy_from_slice(&(good.len() as u32 - 1).to_le_bytes());
    let other = image.blob_for(62, &[0xab; 20], Encoding::Flat);
    let anonymous = image.blob_for(62, &[], Encoding::Flat);
    let machine = image.blob_for(183, &image.build_id, Encoding::Flat);
    let elf = vec![b'E'; 4096];
    let cases: [(&str, &[u8], Errno, &str); 13] = [
        ("flipped", &flipped, Errno::EBADMSG, "checksum"),
        ("magic", &magic, Errno::ENOEXEC, "not a lineinfo blob"),
        ("version", &version, Errno::ENOEXEC, "format version 99"),
        (
            "malformed",
            &malformed,
            Errno::ENOEXEC,
            "malformed header at byte 22",
        ),
        (
            "huge",
            &huge,
            Errno::EFBIG,
            "2097153 bytes, lineinfo.max=2097152",
        ),
        ("tiny", &tiny, Errno::ENOEXEC, "malformed header at byte 12"),
        (
            "short",
            &short,
            Errno::ENOEXEC,
            "bytes where the header says",
        ),
        (
            "other",
            &other,
            Errno::ESTALE,
            "made for build-id abababababababababababababababababababab, this kernel has ",
        ),
        (
            "anonymous",
            &anonymous,
            Errno::ESTALE,
            "made for build-id (none)",
        ),
        ("machine", &machine, Errno::ENOEXEC, "ELF machine 183"),
        ("elf", &elf, Errno::ENOEXEC, "not a lineinfo blob"),
        ("empty", &[], Errno::ENOEXEC, "truncated: 0 of 60 bytes"),
        (
            "truncated",
            &good[..good.len() - 1],
            Errno::ENOEXEC,
            "truncated",
        ),
    ];
    for (name, blob, expected, reason) in cases {
        let mut loader = kernel.loader();
        let written = loader.write_all(blob);
        let committed = loader.commit();
        assert_eq!(committed, errno(expected), "{name}");
        if written.is_err() {
            assert_eq!(written, committed, "{name}");
            assert_eq!(
                loader.write_all(&good),
                committed,
                "{name}: it stays refused"
            );
        }
        let line = kernel.wait_for("lineinfo: load refused: ");
        assert!(
            line.contains(reason) && line.ends_with(&format!(": -{expected}")),
            "{name}: {line}"
        );
        let status = kernel.status();
        assert_eq!(status.last_errno, expected.number(), "{name}");
        assert!(
            status.last_reason().contains(reason),
            "{name}: {}",
            status.last_reason()
        );
        assert_eq!(status.bytes, good.len() as u64, "{name}: the old table");
        let lines = kernel.output_of("meminfo");
        let used = lines
            .iter()
            .find(|line| line.starts_with("VmallocUsed"))
            .expect("a figure");
        let kb = (good.len().div_ceil(4096) * 4).to_string();
        assert!(used.contains(&format!(" {kb} kB")), "{name}: {used}");
    }
}

#[test]
fn every_truncation_and_many_flipped_bits_are_refused() {
    let image = Image::read();
    let good = image.blob(Encoding::Delta);
    let kernel = Kernel::boot(&[]);
    for len in (0..good.len()).step_by(good.len() / 97) {
        let mut loader = kernel.loader();
        let written = loader.write_all(&good[..len]);
        assert_eq!(
            written.and_then(|()| loader.commit()),
            errno(Errno::ENOEXEC),
            "{len}"
        );
    }
    for bit in (0..good.len() * 8).step_by(good.len() * 8 / 211) {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(kernel.load(&damaged).is_err(), "bit {bit}");
    }
    assert_eq!(kernel.status().state, State::Empty.number());
    kernel.load(&good).expect("a good one");
}

#[test]
fn a_kernel_that_takes_none_says_so() {
    let mut kernel = Kernel::boot(&["lineinfo=never"]);
    assert_eq!(kernel.status().state, State::Never.number());
    assert_eq!(kernel.connect().open(OPEN_WRITE), errno(Errno::EPERM));
    let line = kernel.wait_for("open refused: booted with lineinfo=never");
    assert!(line.ends_with("-EPERM"), "{line}");
    assert_eq!(kernel.status().state, State::Never.number());
}

#[test]
fn garbage_hurts_nobody_else() {
    let blob = Image::read().blob(Encoding::Flat);
    let kernel = Kernel::boot(&[]);
    let mut stalled = kernel.connect();
    stalled.0.write_all(&[1]).expect("a byte");
    let silent = kernel.connect();

    let mut client = kernel.connect();
    assert_eq!(client.ioctl(Ioctl::Status, &[]), errno(Errno::EBADF));
    assert_eq!(client.request(0, 0, &[]), errno(Errno::EINVAL));
    assert_eq!(client.request(99, 0, b"payload"), errno(Errno::EINVAL));
    for flags in [0, 4, u32::MAX] {
        assert_eq!(client.open(flags), errno(Errno::EINVAL));
    }
    client.open(OPEN_READ).expect("open");
    assert_eq!(client.open(OPEN_READ), errno(Errno::EINVAL));
    let status = Ioctl::Status.code();
    for unknown in [0x5401, 200, status ^ 1 << 16, status | 1 << 30, u32::MAX] {
        assert_eq!(
            client.request(Op::Ioctl.number(), unknown, &[]).map(drop),
            errno(Errno::ENOTTY)
        );
    }
    assert_eq!(client.ioctl(Ioctl::Status, &[0; 7]), errno(Errno::EINVAL));
    assert_eq!(client.ioctl(Ioctl::Lookup, &[]), errno(Errno::EINVAL));
    let mut unknown_kind = Lookup::new(Address::Exact(0));
    unknown_kind.kind = 3;
    assert_eq!(
        client.ioctl(Ioctl::Lookup, unknown_kind.as_bytes()),
        errno(Errno::EINVAL)
    );
    assert_eq!(client.ioctl(Ioctl::Commit, &[]), errno(Errno::EBADF));

    // A payload that is too large ends the connection, for the next request cannot be found.
    let request = Request {
        op: Op::Read.number(),
        arg: 0,
        len: PAYLOAD_MAX + 1,
    };
    client.0.write_all(request.as_bytes()).expect("it listens");
    assert_eq!(client.reply(), errno(Errno::EINVAL));
    assert_eq!(client.0.read(&mut [0]).expect("the end"), 0);

    let mut noise = kernel.connect();
    noise.0.write_all(&[0xff; 100]).expect("it listens");
    assert_eq!(noise.reply(), errno(Errno::EINVAL));

    kernel.load(&blob).expect("others go on");
    drop((stalled, silent));
}

#[test]
fn a_status_argument_may_be_sent_along() {
    let kernel = Kernel::boot(&[]);
    let mut client = kernel.connect();
    client.open(OPEN_READ).expect("open");
    let bytes = client
        .ioctl(Ioctl::Status, &[0xff; 232])
        .expect("the status");
    let status = lineinfo_core::uapi::Status::read_from_bytes(&bytes).expect("a status");
    assert_eq!(status.state, State::Empty.number());
}

#[test]
fn tables_come_and_go_while_traces_are_printed() {
    let image = Image::read();
    let blobs = [image.blob(Encoding::Flat), image.blob(Encoding::Delta)];
    let mut kernel = Kernel::boot(&["maxcpus=3"]);
    std::thread::scope(|scope| {
        let (done, stop) = std::sync::mpsc::channel::<()>();
        let kernel_socket = kernel.socket().to_owned();
        let blobs = &blobs;
        let loads = scope.spawn(move || {
            let mut loads = 0;
            while matches!(stop.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                let mut client = Client::loader(&kernel_socket);
                client.write_all(&blobs[loads % 2]).expect("a load");
                if loads % 3 == 0 {
                    client.unload().expect("unload");
                }
                loads += 1;
            }
            loads
        });
        for _ in 0..100 {
            for line in kernel.output_of("sysrq l") {
                // A frame is right or bare.
                let Some((frame, place)) = line.split_once(" (sim.rs:") else {
                    continue;
                };
                let name = frame.rsplit_once('+').expect("an offset").0;
                let name = name.split_once("] ").expect("a time").1.trim();
                let name = name.strip_prefix("RIP: 0010:").unwrap_or(name);
                // Found without a frame pointer that can be relied upon.
                let name = name.trim_start_matches("? ");
                // Instances of one function for several types have one name.
                let right = image
                    .functions
                    .iter()
                    .zip(1..)
                    .any(|((_, found), line)| found == name && place == format!("{line})"));
                assert!(right, "{frame} is not in line {place}");
            }
        }
        drop(done);
        assert!(loads.join().expect("the loader") > 0);
    });
    assert!(
        !kernel
            .log
            .iter()
            .any(|line| line.contains("does not answer"))
    );
}
