use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueHint;
use lineinfo_core::Table;
use lineinfo_core::footer::{SIZE, Signature};
use serde::Serialize;

use super::{OUTPUT, print};
use crate::boot_image::BootImage;
use crate::error::{Error, exit};
use crate::extract::elf::ElfFile;
use crate::kind::Kind;
use crate::{hex, json};

/// Show what is appended to a boot image, and whether a kernel would take it.
///
/// Exit status: 3 if nothing is appended, 4 if what is appended is damaged or of another build.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The boot image.
    #[arg(value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    image: PathBuf,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

/// Version of the JSON document.
const JSON_VERSION: u32 = 1;

/// What is in the file of a boot image, from its beginning to its end.
#[derive(Debug, Serialize)]
struct Summary {
    path: String,
    /// What the image is.
    kind: String,
    bytes: u64,
    /// Without what is appended.
    image_bytes: u64,
    /// Of an ELF file.
    image_build_id: Option<String>,
    appended: Option<Appended>,
    /// At the end of the file; after the table, if there is one.
    signature: Option<&'static str>,
    /// Something is appended, and nothing is wrong with it.
    sound: bool,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Appended {
    /// Zeros, which align the table.
    pad_bytes: u64,
    table_offset: u64,
    table_bytes: u64,
    /// `null` for a table that cannot be read.
    table: Option<AppendedTable>,
    footer_offset: u64,
    footer_bytes: u64,
    /// After the footer: padding, or a signature.
    after_bytes: u64,
}

#[derive(Debug, Serialize)]
struct AppendedTable {
    build_id: String,
    encoding: &'static str,
    profile: &'static str,
    entries: u32,
    files: u32,
}

impl Summary {
    fn read(path: &Path) -> Result<Self, Error> {
        let (image, damage) = BootImage::look_at(path)?;
        let kind = image.kind()?;
        let image_build_id = match kind {
            Kind::Elf => {
                let file = ElfFile::open_as_is(path)?;
                let build_id = file.parse().map(|elf| hex(&elf.identity.build_id));
                build_id.ok().filter(|id| !id.is_empty())
            }
            _ => None,
        };
        let mut problems: Vec<String> = damage.iter().map(ToString::to_string).collect();
        let appended = match image.payload()? {
            None => None,
            Some((footer, payload)) => {
                let pad = payload.iter().take_while(|byte| **byte == 0).count();
                let blob = &payload[pad..];
                let table = Table::parse(blob).and_then(|table| table.check_rows().map(|()| table));
                if let (Err(error), None) = (&table, damage) {
                    problems.push(format!("appended table: {error}"));
                }
                let table = table.ok().map(|table| AppendedTable::new(&table));
                if let (Some(table), Some(own)) = (&table, &image_build_id)
                    && table.build_id != *own
                {
                    problems.push(format!(
                        "the table is of build-id {}, and the image of {own}: the kernel will refuse it; append the table of this image with `lineinfo append`",
                        table.build_id
                    ));
                }
                let footer_offset = footer.payload().end;
                Some(Appended {
                    pad_bytes: pad as u64,
                    table_offset: footer.image_len + pad as u64,
                    table_bytes: blob.len() as u64,
                    table,
                    footer_offset,
                    footer_bytes: SIZE as u64,
                    after_bytes: image.file_len() - footer_offset - SIZE as u64,
                })
            }
        };
        Ok(Self {
            path: path.display().to_string(),
            kind: kind.to_string(),
            bytes: image.file_len(),
            image_bytes: image.image_len(),
            image_build_id,
            sound: appended.is_some() && problems.is_empty(),
            appended,
            signature: image.signature().map(|signature| match signature {
                Signature::Module => "module signature",
                Signature::Pe { .. } => "PE certificate table",
            }),
            problems,
        })
    }

    fn print(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "{}: {}, {} bytes", self.path, self.kind, self.bytes)?;
        let build_id = |id: Option<&str>| id.map_or(String::new(), |id| format!(", build-id {id}"));
        let own = build_id(self.image_build_id.as_deref());
        writeln!(to, "image     {:>10} bytes at 0{own}", self.image_bytes)?;
        if let Some(appended) = &self.appended {
            let table = appended.table.as_ref();
            let of_table = build_id(table.map(|table| table.build_id.as_str()));
            writeln!(
                to,
                "table     {:>10} bytes at {}{of_table}",
                appended.table_bytes, appended.table_offset
            )?;
            if let Some(table) = table {
                writeln!(
                    to,
                    "          {}, {}, {} entries, {} files",
                    table.encoding, table.profile, table.entries, table.files
                )?;
            }
            writeln!(
                to,
                "footer    {:>10} bytes at {}",
                appended.footer_bytes, appended.footer_offset
            )?;
            if appended.after_bytes > 0 {
                let what = self.signature.unwrap_or("padding");
                let at = appended.footer_offset + appended.footer_bytes;
                writeln!(
                    to,
                    "after     {:>10} bytes at {at}: {what}",
                    appended.after_bytes
                )?;
            }
        }
        match (&self.appended, &self.problems[..]) {
            (None, []) => writeln!(
                to,
                "nothing is appended; `lineinfo append` does it with a table"
            ),
            (Some(_), []) => writeln!(to, "sound"),
            (_, problems) => problems
                .iter()
                .try_for_each(|problem| writeln!(to, "{problem}")),
        }
    }

    fn exit_code(&self) -> u8 {
        match (&self.appended, self.problems.is_empty()) {
            (_, false) => exit::CORRUPT,
            (None, true) => exit::UNRESOLVED,
            (Some(_), true) => exit::DONE,
        }
    }
}

impl AppendedTable {
    fn new(table: &Table<'_>) -> Self {
        let layout = table.layout();
        Self {
            build_id: hex(layout.build_id()),
            encoding: layout.encoding().name(),
            profile: layout.profile().name(),
            entries: layout.rows(),
            files: layout.files(),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let summary = Summary::read(&args.image)?;
    print(|out| match args.json {
        true => json::write(out, JSON_VERSION, &summary),
        false => summary.print(out),
    })?;
    Ok(summary.exit_code())
}
