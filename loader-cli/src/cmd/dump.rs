use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueHint;
use comfy_table::{CellAlignment, Table as TextTable, presets};
use lineinfo_core::Table;
use lineinfo_core::blob::FORMAT_VERSION;
use serde::Serialize;

use super::{OUTPUT, print};
use crate::Error;
use crate::error::exit;
use crate::files::BlobFile;
use crate::json;
use crate::output::{HardLinks, Output};
use crate::picture::Picture;
use crate::raw;
use crate::shares::Directory;
use crate::{hex, machine_name, signature};

/// Show what is in a table.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X", value_hint = ValueHint::FilePath)]
    blob: PathBuf,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "rows", help_heading = OUTPUT)]
    json: bool,
    /// Print every row instead: address, and file and line, or ?? for a gap.
    #[arg(long, help_heading = OUTPUT)]
    rows: bool,
    /// Show where the bytes go, too: the share of each section, and of the directories of source files.
    /// For a directory it is estimated, each row as the mean of its region.
    #[arg(long, conflicts_with = "rows", help_heading = OUTPUT)]
    tree: bool,
    /// Write a picture of where the bytes go: a bar of the sections, and a treemap of the directories;
    /// - is stdout.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["json", "rows", "tree"], help_heading = OUTPUT)]
    svg: Option<PathBuf>,
}

/// Version of the JSON document.
const JSON_VERSION: u32 = 1;

/// What is in a table, as text and as a JSON document.
#[derive(Debug, Serialize)]
struct Summary {
    table_version: u16,
    machine: String,
    build_id: String,
    text_start: String,
    text_bytes: u64,
    encoding: &'static str,
    profile: &'static str,
    entries: u32,
    files: u32,
    /// Functions that are inlined somewhere; `null` if the table does not have them.
    inlined_functions: Option<u32>,
    bytes: u32,
    signed_by: Option<String>,
    sections: Vec<Section>,
    regions: Vec<Region>,
    /// With --tree, by descending bytes, each before those in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    directories: Option<Vec<DirectoryBytes>>,
}

#[derive(Debug, Serialize)]
struct DirectoryBytes {
    path: String,
    /// How deep it is; 0 has no directory around it.
    #[serde(skip)]
    depth: usize,
    table_bytes: u64,
    entries: u64,
    text_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Section {
    name: &'static str,
    offset: u32,
    bytes: u32,
}

#[derive(Debug, Serialize)]
struct Region {
    name: String,
    start: String,
    text_bytes: u32,
    entries: u32,
    table_bytes: u64,
    init: bool,
}

impl Summary {
    fn new(table: &Table<'_>) -> Self {
        let layout = table.layout();
        Self {
            table_version: FORMAT_VERSION,
            machine: machine_name(layout.machine()),
            build_id: hex(layout.build_id()),
            text_start: format!("{:#x}", layout.text_start()),
            text_bytes: layout.text_len(),
            encoding: layout.encoding().name(),
            profile: layout.profile().name(),
            entries: layout.rows(),
            files: layout.files(),
            inlined_functions: table.inlined_functions(),
            bytes: layout.size(),
            signed_by: table.signed().map(|signed| hex(&signed.signature.key)),
            sections: table
                .sections()
                .map(|(kind, offset, bytes)| Section {
                    name: kind.map_or("unknown", |kind| kind.name()),
                    offset,
                    bytes,
                })
                .collect(),
            regions: table
                .regions()
                .map(|region| Region {
                    name: region.name.to_owned(),
                    start: format!("{:#x}", layout.text_start().wrapping_add(region.start.0)),
                    text_bytes: region.len,
                    entries: region.rows,
                    table_bytes: region.table.end - region.table.start,
                    init: region.init,
                })
                .collect(),
            directories: None,
        }
    }

    /// Adds the directories.
    fn with_tree(mut self, table: &Table<'_>) -> Self {
        let mut directories = Vec::new();
        list(&Directory::of_table(table), "", 0, &mut directories);
        self.directories = Some(directories);
        self
    }

    fn print(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "table version    {}", self.table_version)?;
        writeln!(to, "machine          {}", self.machine)?;
        writeln!(to, "build-id         {}", self.build_id)?;
        writeln!(
            to,
            "text             {} bytes at {}",
            self.text_bytes, self.text_start
        )?;
        writeln!(to, "encoding         {}", self.encoding)?;
        writeln!(to, "profile          {}", self.profile)?;
        writeln!(to, "entries          {}", self.entries)?;
        writeln!(to, "files            {}", self.files)?;
        if let Some(functions) = self.inlined_functions {
            writeln!(to, "inlined functions {functions}")?;
        }
        writeln!(to, "bytes            {}", self.bytes)?;
        if let Some(key) = &self.signed_by {
            writeln!(to, "signed by key    {key}")?;
        }
        let mut sections = text_table(&["section", "offset", "bytes"]);
        for section in &self.sections {
            sections.add_row([
                section.name.to_owned(),
                section.offset.to_string(),
                section.bytes.to_string(),
            ]);
        }
        writeln!(to, "\n{}", right_aligned(sections))?;
        let mut regions = text_table(&["region", "start", "text bytes", "entries", "table bytes"]);
        for region in &self.regions {
            regions.add_row([
                region.name.clone(),
                region.start.clone(),
                region.text_bytes.to_string(),
                region.entries.to_string(),
                region.table_bytes.to_string(),
            ]);
        }
        writeln!(to, "\n{}", right_aligned(regions))?;
        match &self.directories {
            Some(directories) => self.print_tree(directories, to),
            None => Ok(()),
        }
    }

    /// Directories that have a share worth a line.
    fn print_tree(&self, directories: &[DirectoryBytes], to: &mut impl Write) -> io::Result<()> {
        const SHARE_MIN: f64 = 0.005;

        let share = |bytes: u64| bytes as f64 / f64::from(self.bytes);
        let percent = |bytes: u64| format!("{:.1}%", 100.0 * share(bytes));
        let mut sections = text_table(&["section", "share"]);
        for section in &self.sections {
            let bytes = percent(section.bytes.into());
            sections.add_row([section.name.to_owned(), bytes]);
        }
        writeln!(to, "\n{}", right_aligned(sections))?;
        let mut tree = text_table(&["directory", "table bytes", "share", "entries", "text bytes"]);
        for directory in directories {
            if share(directory.table_bytes) < SHARE_MIN {
                continue;
            }
            let indent = "  ".repeat(directory.depth);
            tree.add_row([
                format!("{indent}{}", directory.path),
                directory.table_bytes.to_string(),
                percent(directory.table_bytes),
                directory.entries.to_string(),
                directory.text_bytes.to_string(),
            ]);
        }
        writeln!(to, "\n{}", right_aligned(tree))?;
        writeln!(
            to,
            "\nDirectories of less than {}% are left out; --json has all of them.",
            100.0 * SHARE_MIN
        )
    }
}

/// Lists the directories in one, the largest first, each before those in it.
fn list(directory: &Directory, path: &str, depth: usize, to: &mut Vec<DirectoryBytes>) {
    for (name, child) in directory.largest_first() {
        let path = match path {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        };
        to.push(DirectoryBytes {
            path: path.clone(),
            depth,
            table_bytes: child.bytes.round() as u64,
            entries: child.entries,
            text_bytes: child.text_bytes,
        });
        list(child, &path, depth + 1, to);
    }
}

fn text_table(header: &[&str]) -> TextTable {
    let mut table = TextTable::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// All columns but the first, which has names.
fn right_aligned(mut table: TextTable) -> TextTable {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let blob = BlobFile::open(&args.blob)?;
    let table = blob.table();
    if let Some(signed) = table.signed() {
        signature::check(&args.blob, &signed)?;
    }
    let mut summary = Summary::new(&table);
    if let Some(path) = &args.svg {
        write_picture(path, &args.blob, &summary, &table)?;
        return Ok(exit::DONE);
    }
    if args.tree {
        summary = summary.with_tree(&table);
    }
    print(|out| {
        if args.rows {
            return print_rows(&table, out);
        }
        if args.json {
            return json::write(out, JSON_VERSION, &summary);
        }
        summary.print(out)
    })?;
    Ok(exit::DONE)
}

fn write_picture(
    path: &Path,
    blob: &Path,
    summary: &Summary,
    table: &Table<'_>,
) -> Result<(), Error> {
    let output = Output::at(path, HardLinks::Refuse)?;
    output.differs_from(blob)?;
    let sections = summary.sections.iter();
    let sections: Vec<_> = sections
        .map(|section| (section.name, section.bytes))
        .collect();
    let picture = Picture {
        title: &format!(
            "{}: {} bytes, {}, {}, {} entries",
            blob.display(),
            summary.bytes,
            summary.encoding,
            summary.profile,
            summary.entries
        ),
        sections: &sections,
        directories: &Directory::of_table(table),
    };
    output.write(|file| file.write_all(picture.to_svg().as_bytes()))
}

fn print_rows(table: &Table<'_>, to: &mut impl Write) -> io::Result<()> {
    for (position, region) in table.regions().enumerate() {
        let base = table.layout().text_start().wrapping_add(region.start.0);
        for row in table.region_rows(position) {
            let address = base.wrapping_add(row.start.into());
            match table.file(row.file).filter(|_| !row.is_gap()) {
                Some(file) => {
                    write!(to, "{address:#x} ")?;
                    to.write_all(&raw::to_bytes(&file.to_string()))?;
                    writeln!(to, ":{}", row.line)?;
                }
                None => writeln!(to, "{address:#x} ??")?,
            }
        }
    }
    Ok(())
}
