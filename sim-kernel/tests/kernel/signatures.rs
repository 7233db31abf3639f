//! Signed tables: who demands a key takes no others, at boot and late.

use std::fs;

use ed25519_dalek::{Signer, SigningKey};
use lineinfo_core::KeyId;
use lineinfo_core::blob::Encoding;
use lineinfo_core::uapi::{Errno, State};
use lineinfo_core::writer;

use crate::support::{Image, Kernel, append, open_directory};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn sign(blob: &[u8], key: &SigningKey) -> Vec<u8> {
    let public = key.verifying_key().to_bytes();
    writer::sign(blob, public, |message| key.sign(message).to_bytes()).expect("a table")
}

fn hex(key: &SigningKey) -> String {
    let bytes = key.verifying_key().to_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn with_a_key_only_its_tables_are_taken_at_boot_and_late() {
    let blob = Image::read().blob(Encoding::Packed);
    let good = sign(&blob, &key(1));
    let mut changed = good.clone();
    *changed.get_mut(200).expect("a long table") ^= 1;
    writer::seal(&mut changed);
    let id = KeyId::of(&key(1).verifying_key().to_bytes()).to_string();
    let by_key = format!("lineinfo.key={}", hex(&key(1)));
    let bad_key = "lineinfo.key=/no/such/key".to_owned();
    let cases: [(&[&str], &[u8], Option<&str>); 9] = [
        (&[&by_key], &good, None),
        (&[&by_key, "lockdown=integrity"], &good, None),
        (&[], &good, None),
        (
            &[&by_key],
            &blob,
            Some("it is not signed, this kernel takes tables signed by key"),
        ),
        (
            &[&by_key],
            &sign(&blob, &key(2)),
            Some("; sign it with that key"),
        ),
        (
            &[&by_key],
            &changed,
            Some("does not match: changed after it was signed"),
        ),
        (
            &["lockdown=integrity"],
            &good,
            Some("boot with lineinfo.key=, or without lockdown="),
        ),
        (
            &["lockdown=confidentiality"],
            &blob,
            Some("boot with lineinfo.key="),
        ),
        (
            &[&bad_key, "lockdown=integrity"],
            &good,
            Some("boot with lineinfo.key="),
        ),
    ];
    for (command_line, blob, reason) in cases {
        let directory = open_directory();
        let image = append(&directory, blob, |_| {});
        let kernel = Kernel::boot_image(&image, &[command_line, &["lineinfo=on"]].concat());
        let check = |status: lineinfo_core::uapi::Status| match reason {
            None => assert_eq!(status.state, State::Loaded.number(), "{command_line:?}"),
            Some(reason) => {
                assert_eq!(status.state, State::Empty.number(), "{command_line:?}");
                assert_eq!(status.last_errno, Errno::EKEYREJECTED.number());
                assert!(status.last_reason().contains(reason), "{status}");
                if command_line == [&by_key] {
                    assert!(status.last_reason().contains(&id), "{status}");
                }
            }
        };
        check(kernel.status());
        let expected = reason.map_or(Ok(()), |_| Err(Errno::EKEYREJECTED.number()));
        assert_eq!(kernel.load(blob), expected, "{command_line:?}");
        check(kernel.status());
    }
}

#[test]
fn a_key_that_is_none_is_not_the_same_as_none() {
    let blob = Image::read().blob(Encoding::Packed);
    let directory = open_directory();
    let path = directory.path().join("key");
    fs::write(&path, key(3).verifying_key().to_bytes()).expect("room");
    let of_file = format!("lineinfo.key={}", path.display());
    let mut kernel = Kernel::boot(&[&of_file]);
    assert_eq!(kernel.load(&sign(&blob, &key(3))), Ok(()));
    assert_eq!(
        kernel
            .output_of("cat /sys/kernel/security/lockdown")
            .last()
            .map(String::as_str),
        Some("[none] integrity confidentiality")
    );
    for bad in ["lineinfo.key=", "lineinfo.key", "lineinfo.key=00"] {
        let mut kernel = Kernel::boot(&[bad, "lockdown=integrity"]);
        assert!(
            kernel.log.iter().any(|line| line.contains("lineinfo.key=")
                && line.contains("expected 64 hexadecimal digits")
                && line.ends_with("; no table is taken")),
            "{:#?}",
            kernel.log
        );
        assert_eq!(
            kernel.load(&sign(&blob, &key(3))),
            Err(Errno::EKEYREJECTED.number())
        );
        assert_eq!(
            kernel
                .output_of("cat /sys/kernel/security/lockdown")
                .last()
                .map(String::as_str),
            Some("none [integrity] confidentiality")
        );
    }
}
