use std::io::Write;
use std::path::PathBuf;

use clap::ValueHint;
use lineinfo_core::KeyId;

use super::summarize;
use crate::error::{Error, exit};
use crate::files::BlobFile;
use crate::output::{HardLinks, Output};
use crate::{hex, signature};

/// Sign a table, in place of a signature that it has.
///
/// A kernel that is given the public key at boot (lineinfo.key=) takes only tables that are signed
/// with it. The signature is Ed25519 over all else in the table.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X", value_hint = ValueHint::FilePath)]
    blob: PathBuf,
    /// The private key: PEM or DER of PKCS #8, as `openssl genpkey -algorithm ed25519 -out KEY`
    /// makes it, or its 32 bytes.
    #[arg(long, value_name = "KEY", value_hint = ValueHint::FilePath)]
    key: PathBuf,
    /// Where to write the signed table [default: X].
    #[arg(short, long, value_name = "Y", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let blob = BlobFile::open(&args.blob)?;
    let key = signature::read_private_key(&args.key)?;
    let path = args.output.as_deref().unwrap_or(&args.blob);
    let output = Output::at(path, HardLinks::Refuse)?;
    output.differs_from(&args.key)?;
    let signed = signature::sign(&args.blob, blob.bytes(), &key)?;
    let is_stdout = output.is_stdout();
    output.write(|file| file.write_all(&signed))?;
    let public = key.verifying_key().to_bytes();
    summarize(is_stdout, |out| {
        writeln!(
            out,
            "{}: signed by key {}; boot with lineinfo.key={}",
            path.display(),
            KeyId::of(&public),
            hex(&public)
        )
    })?;
    Ok(exit::DONE)
}
