use std::io::{self, Write};
use std::path::PathBuf;

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
use crate::raw;
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
        }
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
        writeln!(to, "\n{}", right_aligned(regions))
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
    print(|out| {
        if args.rows {
            return print_rows(&table, out);
        }
        let summary = Summary::new(&table);
        if args.json {
            return json::write(out, JSON_VERSION, &summary);
        }
        summary.print(out)
    })?;
    Ok(exit::DONE)
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
