use std::fmt;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, ValueHint};
use lineinfo_core::Table;
use lineinfo_core::uapi::Errno;
use serde::Serialize;

use super::{
    Counts, DeviceArg, KERNEL, OUTPUT, RootArg, check_directories, parse_release, print,
    progress_bar, summarize,
};
use crate::device::Access;
use crate::error::exit;
use crate::files::{self, BlobFile};
use crate::images::Tables;
use crate::images::search::Search;
use crate::progress::Progress;
use crate::symbols::Symbols;
use crate::{Error, hex, json, message, signature};

/// Version of the document of `--json`.
const DOCUMENT_VERSION: u32 = 1;

/// Load a table into a running kernel.
///
/// The symbols in a table are left out: a kernel has its own.
///
/// With --auto the running kernel and all modules that it has loaded get their tables, by build-id.
/// They are looked for in the directories of --dir and $LINEINFO_PATH, in /usr/lib/lineinfo, and among
/// the tables that decode keeps; none is made. What has no table is named, and the others are loaded.
///
/// Exit status with --auto: 3 if the kernel or a module has no table, 1 or 4 if a table was refused.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("tables").args(["blob", "auto"]).required(true)))]
pub(super) struct Args {
    /// The table.
    #[arg(value_name = "X", value_hint = ValueHint::FilePath)]
    blob: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Load the tables of the running kernel and of all its modules.
    #[arg(long, conflicts_with = "module", help_heading = KERNEL)]
    auto: bool,
    /// Look for tables in this directory, too; may be given several times.
    #[arg(
        long,
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        requires = "auto",
        help_heading = KERNEL
    )]
    dir: Vec<PathBuf>,
    /// Look in the directories of this release [default: that of the running kernel].
    #[arg(
        long,
        value_name = "RELEASE",
        requires = "auto",
        value_parser = parse_release,
        help_heading = KERNEL
    )]
    release: Option<String>,
    #[command(flatten)]
    root: RootArg,
    /// Check everything, and say what would be loaded where, but load nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

/// The JSON document; the field names are a promise.
#[derive(Debug, Serialize)]
struct Document<'a> {
    device: String,
    dry_run: bool,
    images: &'a [Image],
}

/// What became of the table of the kernel or of a module.
#[derive(Debug, Serialize)]
struct Image {
    /// `null` for the kernel.
    module: Option<String>,
    /// Of the kernel or the module; `null` if it has none.
    build_id: Option<String>,
    /// The file of the table.
    table: Option<String>,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Outcome {
    /// The kernel has it.
    Loaded {
        #[serde(flatten)]
        sizes: Sizes,
        /// What it takes in the kernel, in bytes.
        memory: u64,
    },
    /// It would have been loaded.
    Checked {
        #[serde(flatten)]
        sizes: Sizes,
    },
    /// There is no table.
    NoTable,
    /// It cannot be loaded.
    Refused { error: String },
}

#[derive(Debug, Serialize)]
struct Sizes {
    entries: u32,
    files: u32,
    bytes: u64,
}

impl Image {
    /// What is said of it after the name of the device.
    fn words(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            if let Some(module) = &self.module {
                write!(f, "{module}: ")?;
            }
            match &self.outcome {
                Outcome::Loaded { sizes, memory } => {
                    write!(f, "loaded: {sizes} in {memory} bytes of memory")
                }
                Outcome::Checked { sizes } => {
                    let table = self.table.as_deref().unwrap_or_default();
                    write!(f, "would load {table}: {sizes}")
                }
                Outcome::NoTable => f.write_str("no table"),
                Outcome::Refused { error } => f.write_str(error),
            }
        })
    }

    /// The kernel, or the module.
    fn name(&self) -> &str {
        self.module.as_deref().unwrap_or("the kernel")
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            entries,
            files,
            bytes,
        } = self;
        write!(f, "{entries} entries, {files} files, {bytes} bytes")
    }
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let (images, status) = match &args.blob {
        Some(path) => (vec![load_named(args, path)?], exit::DONE),
        None => load_running(args)?,
    };
    let device = args.device.path.display();
    if args.json {
        let document = Document {
            device: device.to_string(),
            dry_run: args.dry_run,
            images: &images,
        };
        print(|out| json::write(out, DOCUMENT_VERSION, &document))?;
        return Ok(status);
    }
    let done = images.iter().filter(|image| {
        matches!(
            image.outcome,
            Outcome::Loaded { .. } | Outcome::Checked { .. }
        )
    });
    summarize(false, |out| {
        for image in done {
            writeln!(out, "{device}: {}", image.words())?;
        }
        Ok(())
    })?;
    Ok(status)
}

/// Loads the table that is named.
fn load_named(args: &Args, path: &Path) -> Result<Image, Error> {
    let module = args.device.module.as_deref();
    let bar = progress_bar("load", Counts::Bytes);
    let (outcome, build_id) = match BlobFile::open(path) {
        Ok(table) => {
            check_module(module, path, &table)?;
            let build_id = hex(table.table().layout().build_id());
            (load(args, module, path, &table, &bar)?, Some(build_id))
        }
        // The kernel refuses what does not parse, and says why. It does not look at the rows.
        Err(error @ Error::Blob { .. }) => {
            let bytes = files::read(path)?;
            if args.dry_run || Table::parse(&bytes).is_ok() {
                return Err(error);
            }
            (send(args, module, &bytes, &bar)?, None)
        }
        Err(error) => return Err(error),
    };
    bar.finish_and_clear();
    Ok(Image {
        module: args.device.module.clone(),
        build_id,
        table: Some(path.display().to_string()),
        outcome,
    })
}

/// Fails if a table says that it is of a module, and none is named: the kernel would know only that it is
/// of another build.
fn check_module(module: Option<&str>, path: &Path, blob: &BlobFile) -> Result<(), Error> {
    if module.is_some() {
        return Ok(());
    }
    let symbols = Symbols::of_table(path, &blob.table())?;
    match symbols.as_ref().and_then(Symbols::module) {
        Some(own) => Err(Error::Usage(format!(
            "{}: is the table of the module {own}; add --module {own}",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Loads the tables of the running kernel and of its modules, and gives the exit status.
fn load_running(args: &Args) -> Result<(Vec<Image>, u8), Error> {
    check_directories("--dir", &args.dir)?;
    let (running, kernel) = args.root.read(&args.device)?;
    let release = args.release.clone().or(running.release);
    let search = Search {
        servers: Vec::new(),
        ..Search::new(&args.dir)
    };
    let tables = Tables::new(search, release);
    let mut wanted = vec![(None, Some(kernel.build_id().to_owned()))];
    for module in running.modules {
        wanted.push((Some(module.name), module.build_id));
    }
    let mut status = exit::DONE;
    let mut images = Vec::new();
    // One for all of them: a table alone takes a moment.
    let bar = progress_bar("load", Counts::Things);
    bar.set_length(wanted.len() as u64);
    for (module, build_id) in wanted {
        let build_id = build_id.or_else(|| build_id_of(args, module.as_deref()));
        let build_id = build_id.filter(|id| !id.is_empty());
        let found = build_id
            .as_deref()
            .and_then(|id| tables.find(module.as_deref(), id));
        let outcome = match &found {
            Some((path, table)) => {
                load(args, module.as_deref(), path, table, &()).unwrap_or_else(|error| {
                    bar.suspend(|| message::error(&error));
                    if status == exit::DONE {
                        status = error.exit_code();
                    }
                    Outcome::Refused {
                        error: error.to_string(),
                    }
                })
            }
            None => Outcome::NoTable,
        };
        images.push(Image {
            module,
            build_id: build_id.as_deref().map(hex),
            table: found.map(|(path, _)| path.display().to_string()),
            outcome,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let missing = images
        .iter()
        .filter(|image| matches!(image.outcome, Outcome::NoTable));
    let missing: Vec<&str> = missing.map(Image::name).collect();
    if !missing.is_empty() {
        message::warning(format_args!(
            "{} of {} have no table in {}: {}; build them with `lineinfo build`, or name their directory with --dir",
            missing.len(),
            images.len(),
            tables.places(),
            missing.join(", ")
        ));
        if status == exit::DONE {
            status = exit::UNRESOLVED;
        }
    }
    Ok((images, status))
}

/// What the device says of the build-id of a module.
fn build_id_of(args: &Args, module: Option<&str>) -> Option<Vec<u8>> {
    let mut device = args.device.open(Access::Read).ok()?;
    device.target(module?).ok()?;
    Some(device.status().ok()?.build_id().to_owned())
}

/// Loads a table that is right in itself, or checks whether it would be taken.
fn load(
    args: &Args,
    module: Option<&str>,
    path: &Path,
    blob: &BlobFile,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let table = blob.table();
    if let Some(signed) = table.signed() {
        signature::check(path, &signed)?;
    }
    let bytes = blob.without_symbols().map_err(|source| Error::Encode {
        path: path.to_owned(),
        source,
    })?;
    if !args.dry_run {
        return send(args, module, &bytes, progress);
    }
    // Who may not load is told so here as well.
    let mut device = args.device.open_for(module, Access::Write)?;
    let status = device.status()?;
    let layout = table.layout();
    if layout.build_id() != status.build_id() {
        return Err(Error::NotRunning {
            path: path.to_owned(),
            table: hex(layout.build_id()),
            device: args.device.path.clone(),
            running: hex(status.build_id()),
        });
    }
    Ok(Outcome::Checked {
        sizes: Sizes {
            entries: layout.rows(),
            files: layout.files(),
            bytes: bytes.len() as u64,
        },
    })
}

/// Loads bytes into the slot of the kernel or of a module.
fn send(
    args: &Args,
    module: Option<&str>,
    bytes: &[u8],
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let mut device = args.device.open_for(module, Access::Write)?;
    progress.begin(bytes.len() as u64);
    let mut before = 0;
    let loaded = device.load(bytes, |written| {
        progress.advance(written - before);
        before = written;
    });
    loaded.map_err(|error| match error {
        Error::Device {
            path,
            operation,
            errno,
            reason,
        } if errno == Errno::ESTALE.number() && module.is_none() => Error::Device {
            path,
            operation,
            errno,
            reason: format!("{reason}; if it is the table of a module, add --module NAME"),
        },
        other => other,
    })?;
    let status = device.status()?;
    Ok(Outcome::Loaded {
        sizes: Sizes {
            entries: status.rows,
            files: status.files,
            bytes: status.bytes,
        },
        memory: status.memory,
    })
}
