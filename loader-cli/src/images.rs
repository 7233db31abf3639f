//! The kernel and the modules that a log is decoded with: for each its symbols and its table.
//!
//! ```text
//!   Frame ─ module? ─> Image: Symbols::find ─> addresses ─ Kind ─> Address ─> Source::lookup
//! ```
//!
//! Symbols and table must be of one build. A table that has symbols needs nothing else; those that are
//! named count before its own. A vmlinux or module without a table gets one, which is
//! kept by build-id ([`crate::images::cache`]).

pub mod cache;
mod debuginfod;
pub mod search;
mod store;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use lineinfo_core::Address;
use object::elf;

use crate::error::Error;
use crate::files::{self, BlobFile, TABLE_EXTENSION};
use crate::hex;
use crate::log::{Facts, Frame, Kind, Module, Outcome, Resolve};
use crate::message;
use crate::running;
use crate::source::{LocationBuf, Source};
use crate::symbols::{Found, Symbols};

use self::search::Search;
use self::store::{Ambiguous, Stores};

/// A list of symbols of the running kernel.
pub const RUNNING_SYMBOLS: &str = "/proc/kallsyms";

/// A kernel or a module: where its functions are, and their lines.
#[derive(Debug)]
pub struct Image {
    symbols: Symbols,
    source: Source,
    /// What the addresses of the symbols are above those of the source.
    slide: u64,
    /// It is a module that was named, and not found: the word of who named it counts for more than
    /// that of the log, and what disagrees is reported.
    named: bool,
    disagrees: bool,
}

impl Image {
    /// Puts symbols and a source of lines together.
    ///
    /// # Errors
    ///
    /// [`Error::OtherBuild`] if they are of different builds, unless `force` is set.
    pub fn new(symbols: Symbols, mut source: Source, force: bool) -> Result<Self, Error> {
        let own = match symbols.build_id() {
            Some(build_id) => Some(build_id.to_owned()),
            None if symbols.path() == Path::new(RUNNING_SYMBOLS) => running_build_id(),
            None => None,
        };
        let of_source = source.build_id()?;
        if let Some(own) = own
            && own != of_source
            && !force
        {
            return Err(Error::OtherBuild {
                blob_path: source.path().to_owned(),
                blob: hex(&of_source),
                image_path: symbols.path().to_owned(),
                image: hex(&own),
            });
        }
        // A list has the addresses of the run, as a device has.
        let slide = source
            .linked_text_start()
            .map_or(0, |linked| symbols.text_start().wrapping_sub(linked));
        message::detail(format_args!(
            "{}: used for {}, with lines of {}",
            symbols.path().display(),
            symbols.module().unwrap_or("the kernel"),
            source.path().display()
        ));
        Ok(Self {
            symbols,
            source,
            slide,
            named: false,
            disagrees: false,
        })
    }

    /// Its symbols.
    pub const fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The location of a frame of this image.
    ///
    /// # Errors
    ///
    /// Those of [`Source::lookup`].
    pub fn locate(&mut self, frame: &Frame<'_>, kind: Kind) -> Result<Outcome, Error> {
        // Only a return address may be where the function ends.
        let end = match kind {
            Kind::Return | Kind::Unreliable => frame.size,
            _ => frame.size.saturating_sub(1),
        };
        let addresses = match self.symbols.find(frame.symbol, frame.size) {
            Found::Functions(addresses) if frame.offset <= end => addresses,
            Found::Nothing => return Ok(Outcome::UnknownSymbol),
            Found::OtherSize if self.named => {
                self.disagrees = true;
                self.symbols.containing(frame.symbol, frame.offset)
            }
            Found::Functions(_) | Found::OtherSize => return Ok(Outcome::OtherSize),
        };
        let count = addresses.len();
        let mut addresses = addresses.into_iter();
        let Some(first) = addresses.next() else {
            return Ok(Outcome::OtherSize);
        };
        let mut lookup = |address: u64| self.lookup(address.wrapping_add(frame.offset), kind);
        let location = lookup(first)?;
        for other in addresses {
            if lookup(other)? != location {
                return Ok(Outcome::Ambiguous(count));
            }
        }
        Ok(location.map_or(Outcome::NoLine, Outcome::Found))
    }

    /// The function and the location of an address alone, of a kernel that was moved by `slide`.
    ///
    /// # Errors
    ///
    /// Those of [`Source::lookup`].
    pub fn name(
        &mut self,
        frame: &Frame<'_>,
        address: u64,
        kind: Kind,
        slide: u64,
    ) -> Result<Outcome, Error> {
        let address = address.wrapping_sub(slide).wrapping_add(self.slide);
        let byte = match kind {
            Kind::Return | Kind::Unreliable => address.wrapping_sub(1),
            _ => address,
        };
        // What is in no function is no code of the kernel, but of a module or a process.
        let Some((name, start, size)) = self.symbols.at(byte) else {
            return Ok(Outcome::Data);
        };
        let offset = address - start;
        let function = format!("{}+{offset:#x}/{size:#x}", name.as_bstr());
        // A tool has named it: it must be the same.
        let is_same = frame.symbol.is_empty()
            || self
                .symbols
                .containing(frame.symbol, byte - start)
                .contains(&start)
                && (frame.offset == 0 || frame.offset == offset);
        match is_same {
            true => Ok(Outcome::Named(function, self.lookup(address, kind)?)),
            false => Ok(Outcome::OtherSize),
        }
    }

    /// The location of an address of the symbols.
    ///
    /// It is asked for as an offset from `_text`, which a device tells anybody, and which is the same
    /// wherever the kernel was moved.
    ///
    /// # Errors
    ///
    /// Those of [`Source::lookup`].
    pub fn lookup(&mut self, address: u64, kind: Kind) -> Result<Option<LocationBuf>, Error> {
        let offset = address.checked_sub(self.symbols.text_start());
        let Some(offset) = offset.and_then(|offset| address_of(offset, kind)) else {
            return Ok(None);
        };
        let location = self.source.lookup_offset(offset)?;
        Ok(location.map(|mut location| {
            location.approximate |= kind == Kind::Start;
            location
        }))
    }

    /// The location of an address that a user names: of the running kernel if that is asked, else of the
    /// symbols.
    ///
    /// # Errors
    ///
    /// Those of [`Source::lookup`].
    pub fn lookup_named(&mut self, address: u64, kind: Kind) -> Result<Option<LocationBuf>, Error> {
        match (self.source.linked_text_start(), address_of(address, kind)) {
            (None, Some(address)) => self.source.lookup(address),
            _ => self.lookup(address, kind),
        }
    }
}

/// An address that is of a kind; `None` for a return to 0.
fn address_of(address: u64, kind: Kind) -> Option<Address<u64>> {
    match kind {
        Kind::Return => Some(Address::Return(address)),
        Kind::Unreliable => Address::Return(address).unreliable(),
        Kind::Exact | Kind::Start | Kind::Warning(_) | Kind::Data => Some(Address::Exact(address)),
        Kind::Trap => Some(Address::Trap(address)),
    }
}

/// The build-id of the running kernel.
fn running_build_id() -> Option<Vec<u8>> {
    running::build_id(Path::new(running::ROOT))
}

/// The release of the running kernel.
fn running_release() -> Option<String> {
    running::release(Path::new(running::ROOT))
}

/// What to decode a log with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tables, of a kernel and of modules.
    pub tables: Vec<PathBuf>,
    /// A device, instead of the kernel's table.
    pub device: Option<PathBuf>,
    /// Files with symbols: a vmlinux or a list, and modules.
    pub symbols: Vec<PathBuf>,
    /// Directories of modules.
    pub modules: Vec<PathBuf>,
    /// Directories of separate debug files.
    pub debug_dirs: Vec<PathBuf>,
    /// Where to look for what is not named.
    pub search: Search,
    /// Go on where builds differ.
    pub force: bool,
}

/// The kernel and the modules that a log is decoded with.
#[derive(Debug)]
pub struct Images {
    kernel: Option<Image>,
    modules: HashMap<String, Image>,
    /// Modules that were looked for in vain, with the build-id that was asked for.
    missing: HashSet<(String, String)>,
    /// Read when the first module is looked for.
    files: Option<ModuleFiles>,
    /// Read when something is looked for of which the build-id is not known.
    stores: Option<Stores>,
    facts: Facts,
    /// How far the kernel was moved from where it was linked, if that is known.
    slide: Option<u64>,
    options: Options,
    notes: Vec<String>,
}

impl Images {
    /// Opens what the options name; `facts` is what the log says of its kernel.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with a file that is named; [`Error::OtherBuild`] and [`Error::OtherKernel`] if
    /// they do not belong together; [`Error::Usage`] if something is missing.
    pub fn open(options: Options, facts: &Facts) -> Result<Self, Error> {
        let mut images = Self {
            kernel: None,
            modules: HashMap::new(),
            missing: HashSet::new(),
            files: None,
            stores: None,
            facts: facts.clone(),
            slide: None,
            options: options.clone(),
            notes: Vec::new(),
        };
        let mut symbols = Vec::new();
        for path in &options.symbols {
            symbols.push(Symbols::open(path)?);
        }
        for path in &options.tables {
            let mut source = Source::table(path)?;
            let build_id = source.build_id()?;
            let own = source.symbols()?;
            let symbols = match take_for(&mut symbols, &build_id, own.as_ref()).or(own) {
                Some(symbols) => symbols,
                None => images.symbols_for(path, &build_id)?,
            };
            images.add(Image::new(symbols, source, options.force)?)?;
        }
        if let (Some(path), None) = (&options.device, &images.kernel) {
            let source = Source::device(path)?;
            let kernel = symbols
                .iter()
                .position(|symbols| symbols.module().is_none());
            let symbols = match kernel {
                Some(kernel) => symbols.remove(kernel),
                None => Symbols::open(Path::new(RUNNING_SYMBOLS))?,
            };
            images.add(Image::new(symbols, source, options.force)?)?;
        }
        for symbols in symbols {
            let image = images.with_table(symbols)?;
            images.add(image)?;
        }
        if images.kernel.is_none() && images.modules.is_empty() {
            let kernel = images.find_kernel()?;
            images.add(kernel)?;
        }
        Ok(images)
    }

    /// Symbols that go with a table for which none are named.
    fn symbols_for(&self, table: &Path, build_id: &[u8]) -> Result<Symbols, Error> {
        let facts = Facts {
            build_id: Some(hex(build_id)),
            ..self.facts.clone()
        };
        for path in self.options.search.kernels(&facts) {
            if let Ok(symbols) = Symbols::open(&path)
                && symbols.build_id() == Some(build_id)
            {
                return Ok(symbols);
            }
        }
        if running_build_id().is_some_and(|running| running == build_id) {
            return Symbols::open(Path::new(RUNNING_SYMBOLS));
        }
        Err(Error::Usage(format!(
            "{}: it has no symbols, and there is no vmlinux of its build-id {} in {}; name one, or a copy of its kernel's /proc/kallsyms, with --vmlinux",
            table.display(),
            hex(build_id),
            self.options.search.places()
        )))
    }

    /// Symbols with their table: one that is found, or is made.
    fn with_table(&self, symbols: Symbols) -> Result<Image, Error> {
        let Some(own) = symbols.build_id() else {
            return Err(Error::Usage(format!(
                "{}: a list of symbols has no lines; name a table with --table, or a vmlinux with --vmlinux",
                symbols.path().display()
            )));
        };
        let build_id = Some(hex(own)).filter(|id| !id.is_empty());
        let release = symbols.release().filter(|_| symbols.module().is_none());
        let is_same = |table: &BlobFile| table.table().layout().build_id() == own;
        for path in self.options.search.tables(build_id.as_deref(), release) {
            if build_id.is_some()
                && let Ok(table) = BlobFile::open(&path)
                && is_same(&table)
            {
                return Image::new(symbols, Source::of_blob(&path, table), self.options.force);
            }
        }
        let table = cache::table_of(symbols.path(), &self.options.debug_dirs)?;
        let source = Source::of_blob(symbols.path(), table);
        Image::new(symbols, source, self.options.force)
    }

    /// What was found, with a table: its own, or one beside it, or one that is made.
    fn image_of(&self, found: Candidate) -> Result<Image, Error> {
        let symbols = match found {
            Candidate::Table(symbols, source) => {
                return Image::new(symbols, source, self.options.force);
            }
            Candidate::Image(symbols) => symbols,
        };
        let files = self.files.as_ref();
        match files.and_then(|files| files.table_of(&symbols)) {
            Some((path, table)) => {
                let source = Source::of_blob(&path, table);
                Image::new(symbols, source, self.options.force)
            }
            None => self.with_table(symbols),
        }
    }

    /// The kernel that wrote the log, from its release and build-id.
    fn find_kernel(&mut self) -> Result<Image, Error> {
        let (release, build_id) = (self.facts.release.clone(), self.facts.build_id.clone());
        let (None, None) = (&release, &build_id) else {
            return self.find_kernel_of(release.as_deref(), build_id.as_deref());
        };
        Err(Error::Usage(
            "the log does not say which kernel wrote it; name its vmlinux with --vmlinux, its table with --table, or its release with --release"
                .to_owned(),
        ))
    }

    fn find_kernel_of(
        &mut self,
        release: Option<&str>,
        build_id: Option<&str>,
    ) -> Result<Image, Error> {
        let search = &self.options.search;
        let mut paths = search.tables(build_id, release);
        paths.extend(build_id.and_then(kept));
        paths.extend(search.kernels(&self.facts));
        for path in paths {
            let Some(found) = Candidate::found(&path, &mut self.notes) else {
                continue;
            };
            let symbols = found.symbols();
            let own = symbols.build_id().map(hex);
            let is_right = match (build_id, release) {
                (Some(build_id), _) => own.as_deref() == Some(build_id),
                (None, release) => symbols.release() == release,
            };
            if is_right && symbols.module().is_none() {
                return self.image_of(found);
            }
            self.notes.push(format!(
                "{}: it is of another kernel, {}",
                path.display(),
                symbols.release().unwrap_or("of no known release")
            ));
        }
        if let (None, Some(release)) = (build_id, release) {
            let found = self.stored(None, release);
            let found = found.map_err(|error| Error::Usage(error.to_string()))?;
            if let Some(found) = found {
                return self.image_of(found);
            }
        }
        let build_id = build_id.map(str::to_owned);
        let running = || {
            let is_running = release.is_some() && release == running_release().as_deref();
            is_running.then(running_build_id)?.as_deref().map(hex)
        };
        if let Some(build_id) = build_id.clone().or_else(running)
            && let Some(image) = self.fetch(&build_id)
            && image.symbols.module().is_none()
        {
            return Ok(image);
        }
        let build_id = build_id.as_deref();
        // A table and a list of symbols, without a vmlinux.
        let lists = release.map_or_else(Vec::new, |release| self.options.search.lists(release));
        for table in self.options.search.tables(build_id, release) {
            for list in &lists {
                if let Ok(symbols) = Symbols::open(list) {
                    let source = Source::table(&table)?;
                    return Image::new(symbols, source, self.options.force);
                }
            }
        }
        Err(Error::NoKernel {
            kernel: match (release, build_id) {
                (Some(release), _) => release.to_owned(),
                (None, build_id) => format!("build-id {}", build_id.unwrap_or_default()),
            },
            places: self.options.search.places(),
            others: self.notes.iter().map(|note| format!("\n{note}")).collect(),
        })
    }

    /// The table of the kernel, or of a module, of a release in stores.
    fn stored(
        &mut self,
        module: Option<&str>,
        release: &str,
    ) -> Result<Option<Candidate>, Ambiguous> {
        let stores = self.stores.get_or_insert_with(|| {
            let mut directories = self.options.modules.clone();
            directories.extend(self.options.search.stores(Some(release)));
            Stores::read(&directories)
        });
        let found = stores.find(module, release)?;
        let found = found.and_then(|path| Candidate::found(path, &mut self.notes));
        // It was not checked before.
        Ok(found.filter(|found| {
            let symbols = found.symbols();
            symbols.module() == module && symbols.release() == Some(release)
        }))
    }

    /// What debuginfod servers have of a build-id; what is wrong with it is noted.
    fn fetch(&mut self, build_id: &str) -> Option<Image> {
        let fetched = debuginfod::fetch(&self.options.search.servers, build_id, &mut self.notes)?;
        let image = (|| {
            let table = cache::table_of(&fetched.path(), &self.options.debug_dirs)?;
            let source = Source::of_blob(Path::new(&fetched.url), table);
            match source.symbols()? {
                Some(symbols) => Image::new(symbols, source, self.options.force).map(Some),
                None => Ok(None),
            }
        })();
        let note = match image {
            Ok(Some(image)) if image.symbols.build_id().map(hex).as_deref() == Some(build_id) => {
                return Some(image);
            }
            Ok(Some(_)) => "it is of another build-id".to_owned(),
            Ok(None) => "it has no symbols".to_owned(),
            Err(error) => error.to_string(),
        };
        self.notes.push(format!("{}: {note}", fetched.url));
        None
    }

    /// The kernel.
    pub fn kernel(&mut self) -> Option<&mut Image> {
        self.kernel.as_mut()
    }

    /// How many bits the code of the kernel is for, if it is of x86. A running kernel does not say it: it is
    /// of this machine.
    pub fn x86_bits(&self) -> Option<u32> {
        let machine = self
            .kernel
            .as_ref()
            .and_then(|kernel| kernel.source.machine());
        match machine.map(elf::Machine) {
            Some(elf::EM_X86_64) => Some(64),
            Some(elf::EM_386) => Some(32),
            Some(_) => None,
            None => cfg!(target_arch = "x86_64").then_some(64),
        }
    }

    /// Says how far the kernel was moved from where it was linked.
    pub const fn set_slide(&mut self, slide: Option<u64>) {
        self.slide = slide;
    }

    /// The kernel and the modules that are known.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Image> {
        self.kernel.iter_mut().chain(self.modules.values_mut())
    }

    /// The modules that were named though the log was written with others of that name.
    pub fn disagreeing(&self) -> Vec<&str> {
        let modules = self.modules.iter();
        let disagreeing = modules.filter(|(_, image)| image.disagrees);
        disagreeing.map(|(name, _)| name.as_str()).collect()
    }

    /// What was said of files since the last call, for stderr.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Checks that a log which says this was written by this kernel.
    ///
    /// # Errors
    ///
    /// [`Error::OtherKernel`] if it was not, unless forced.
    pub fn check(&mut self, facts: &Facts) -> Result<(), Error> {
        self.facts.merge(facts);
        let Some(kernel) = self.kernel.as_ref().filter(|_| !self.options.force) else {
            return Ok(());
        };
        let symbols = kernel.symbols();
        let running = || {
            let is_running = symbols.path() == Path::new(RUNNING_SYMBOLS);
            is_running.then(running_release)?
        };
        let release = symbols.release().map(str::to_owned).or_else(running);
        let build_id = symbols.build_id().map(hex);
        for (what, log, own) in [
            ("release", &facts.release, release),
            (
                "build-id",
                &facts.build_id,
                build_id.filter(|id| !id.is_empty()),
            ),
        ] {
            if let (Some(log), Some(own)) = (log, own)
                && *log != own
            {
                return Err(Error::OtherKernel {
                    log: format!("was written by the kernel of {what} {log}"),
                    path: symbols.path().to_owned(),
                    kernel: format!("its {what} is {own}"),
                    remedy: "name the table and vmlinux of the kernel that wrote it",
                });
            }
        }
        Ok(())
    }

    /// The error for a log in which symbols have other sizes than here.
    pub fn other_sizes(&self, symbols: usize) -> Error {
        let kernel = self.kernel.as_ref().map(|kernel| kernel.symbols().path());
        Error::OtherKernel {
            log: format!(
                "has {symbols} functions with other sizes than here, and none with the same"
            ),
            path: kernel.unwrap_or(Path::new("no kernel")).to_owned(),
            kernel: "it is of another build".to_owned(),
            remedy: "name the table and vmlinux of the kernel that wrote it",
        }
    }

    /// Adds an image; of two modules of one name the first counts.
    fn add(&mut self, image: Image) -> Result<(), Error> {
        match image.symbols.module() {
            Some(module) => {
                let module = module.to_owned();
                let image = Image {
                    named: true,
                    ..image
                };
                self.modules.entry(module).or_insert(image);
            }
            None if self.kernel.is_none() => {
                self.kernel = Some(image);
                let facts = self.facts.clone();
                self.check(&facts)?;
            }
            None => {
                return Err(Error::Usage(format!(
                    "{}: a second kernel; name one",
                    image.symbols.path().display()
                )));
            }
        }
        Ok(())
    }

    /// The module of a frame, from what is named and from the directories of modules.
    fn module(&mut self, module: Module<'_>) -> Result<Option<&mut Image>, Error> {
        let name = String::from_utf8_lossy(module.name).replace('-', "_");
        let build_id = String::from_utf8_lossy(module.build_id).into_owned();
        let is_right = |image: &Image| {
            let own = image.symbols.build_id().map(hex);
            build_id.is_empty() || own.as_deref() == Some(build_id.as_str())
        };
        let is_known = self.modules.get_mut(&name).is_some_and(|image| {
            let is_right = is_right(image);
            image.disagrees |= image.named && !is_right;
            image.named || is_right
        });
        if !is_known {
            let asked = (name.clone(), build_id.clone());
            if self.missing.contains(&asked) {
                return Ok(None);
            }
            let found = self.find_module(&name, &build_id, is_right)?;
            let Some(image) = found else {
                self.notes.push(match build_id.as_str() {
                    "" => format!("no table of the module {name}; name its directory with --modules"),
                    id => format!("no table of the module {name} of build-id {id}; name its directory with --modules"),
                });
                self.missing.insert(asked);
                return Ok(None);
            };
            self.modules.insert(name.clone(), image);
        }
        Ok(self.modules.get_mut(&name))
    }

    fn find_module(
        &mut self,
        name: &str,
        build_id: &str,
        is_right: impl Fn(&Image) -> bool,
    ) -> Result<Option<Image>, Error> {
        let roots = || {
            let release = self.facts.release.as_deref();
            let mut roots = self.options.modules.clone();
            roots.extend(self.options.search.modules(release));
            ModuleFiles::find(&roots)
        };
        let files = self.files.get_or_insert_with(roots);
        let search = &self.options.search;
        let release = self.facts.release.as_deref();
        let mut paths = tables_of_module(search, files, (name, build_id), release);
        paths.extend(search.debug_files(build_id));
        paths.extend(files.of(name));
        for path in paths {
            let Some(found) = Candidate::found(&path, &mut self.notes) else {
                continue;
            };
            let symbols = found.symbols();
            if symbols.module() != Some(name) {
                continue;
            }
            let differs = matches!(
                (symbols.release(), &self.facts.release),
                (Some(own), Some(log)) if own != log
            );
            if differs && !self.options.force {
                let own = symbols.release().unwrap_or_default();
                let log = self.facts.release.as_deref().unwrap_or_default();
                self.notes.push(format!(
                    "{}: it is of the release {own}, and the log of {log}",
                    path.display()
                ));
                continue;
            }
            match self.image_of(found) {
                Ok(image) if is_right(&image) || self.options.force => return Ok(Some(image)),
                Ok(_) => self.notes.push(format!(
                    "{}: it has another build-id than the log says",
                    path.display()
                )),
                Err(error) => self.notes.push(error.to_string()),
            }
        }
        if build_id.is_empty() {
            let own = self
                .kernel
                .as_ref()
                .and_then(|kernel| kernel.symbols.release());
            let release = self.facts.release.as_deref().or(own).map(str::to_owned);
            let Some(release) = release else {
                return Ok(None);
            };
            let stored = self.stored(Some(name), &release);
            let stored = noted(stored, &mut self.notes);
            let image = stored.map(|found| self.image_of(found)).transpose();
            return Ok(noted(image, &mut self.notes));
        }
        let fetched = self.fetch(build_id);
        Ok(fetched.filter(|image| image.symbols.module() == Some(name)))
    }
}

/// Tables that may be of a module, by its build-id in hexadecimal and by its name.
fn tables_of_module(
    search: &Search,
    files: &ModuleFiles,
    (name, build_id): (&str, &str),
    release: Option<&str>,
) -> Vec<PathBuf> {
    let mut paths = search.tables_by_build_id(Some(build_id), release);
    paths.extend(kept(build_id));
    paths.extend(files.tables_of(name));
    paths
}

/// The tables that there are of a kernel and of its modules; none is made.
#[derive(Debug)]
pub struct Tables {
    search: Search,
    release: Option<String>,
    files: ModuleFiles,
}

impl Tables {
    /// Looks for tables of a kernel of this release, if it is known.
    pub fn new(search: Search, release: Option<String>) -> Self {
        let files = ModuleFiles::find(&search.modules(release.as_deref()));
        Self {
            search,
            release,
            files,
        }
    }

    /// The table of the kernel, or of one of its modules, that is of this build-id, and where it is.
    pub fn find(&self, module: Option<&str>, build_id: &[u8]) -> Option<(PathBuf, BlobFile)> {
        let id = hex(build_id);
        let release = self.release.as_deref();
        let paths = match module {
            Some(name) => tables_of_module(&self.search, &self.files, (name, &id), release),
            None => {
                let mut paths = self.search.tables(Some(&id), release);
                paths.extend(kept(&id));
                paths
            }
        };
        paths
            .into_iter()
            .find_map(|path| match BlobFile::open(&path) {
                Ok(table) if table.table().layout().build_id() == build_id => {
                    message::detail(format_args!(
                        "{}: used for {}",
                        path.display(),
                        module.unwrap_or("the kernel")
                    ));
                    Some((path, table))
                }
                Ok(_) => None,
                Err(error) => {
                    message::detail(error);
                    None
                }
            })
    }

    /// In words, where it was looked.
    pub fn places(&self) -> String {
        self.search.places()
    }
}

/// The table that is kept of a build-id in hexadecimal.
fn kept(build_id: &str) -> Option<PathBuf> {
    let bytes: Option<Vec<u8>> = build_id
        .as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
        .collect();
    cache::kept(&bytes?).map(|(path, _)| path)
}

impl Resolve for Images {
    fn resolve(&mut self, frame: &Frame<'_>, kind: Kind) -> Result<Outcome, Error> {
        if let Some(address) = frame.address {
            return match (&mut self.kernel, self.slide) {
                (Some(kernel), Some(slide)) => kernel.name(frame, address, kind, slide),
                _ => Ok(Outcome::Data),
            };
        }
        let image = match frame.module {
            Some(module) => self.module(module)?,
            None => self.kernel.as_mut(),
        };
        match image {
            Some(image) => image.locate(frame, kind),
            None if frame.module.is_some() => Ok(Outcome::NoModule),
            None => Ok(Outcome::UnknownSymbol),
        }
    }
}

/// Symbols in a file that was found.
#[derive(Debug)]
enum Candidate {
    /// Those of a table, and the table.
    Table(Symbols, Source),
    /// Those of an image.
    Image(Symbols),
}

/// What was found; an error is noted.
fn noted<T>(found: Result<Option<T>, impl ToString>, notes: &mut Vec<String>) -> Option<T> {
    found.unwrap_or_else(|error| {
        notes.push(error.to_string());
        None
    })
}

impl Candidate {
    /// Opens what a search found; what cannot be opened is noted, and the search goes on.
    fn found(path: &Path, notes: &mut Vec<String>) -> Option<Self> {
        noted(Self::open(path), notes)
    }

    /// Opens a table or an image; `None` for a table without symbols.
    fn open(path: &Path) -> Result<Option<Self>, Error> {
        if path.extension() != Some(OsStr::new(TABLE_EXTENSION)) {
            return Ok(Some(Self::Image(Symbols::open(path)?)));
        }
        let source = Source::table(path)?;
        let symbols = source.symbols()?;
        Ok(symbols.map(|symbols| Self::Table(symbols, source)))
    }

    const fn symbols(&self) -> &Symbols {
        match self {
            Self::Table(symbols, _) | Self::Image(symbols) => symbols,
        }
    }
}

/// Takes out the symbols that a table of a build-id goes with: those of the same build, or a list, or
/// the only ones, unless its own symbols say that these are of something else.
fn take_for(symbols: &mut Vec<Symbols>, build_id: &[u8], own: Option<&Symbols>) -> Option<Symbols> {
    let may_be = |symbols: &Symbols| own.is_none_or(|own| own.module() == symbols.module());
    let position = symbols
        .iter()
        .position(|symbols| symbols.build_id() == Some(build_id))
        .or_else(|| {
            let is_list = |symbols: &Symbols| symbols.build_id().is_none() && may_be(symbols);
            symbols.iter().position(is_list)
        })
        .or_else(|| match &symbols[..] {
            [only] if may_be(only) => Some(0),
            _ => None,
        })?;
    Some(symbols.remove(position))
}

/// Modules and tables below some directories.
#[derive(Debug, Default)]
struct ModuleFiles {
    /// By name, with underscores.
    modules: HashMap<String, Vec<PathBuf>>,
    tables: Vec<PathBuf>,
}

impl ModuleFiles {
    /// Reads the directories, and what is below them; what cannot be read is not there.
    fn find(roots: &[PathBuf]) -> Self {
        let mut found = Self::default();
        for root in roots {
            match root.is_file() {
                true => found.add(root.clone()),
                false => files::below(root, |_| {})
                    .into_iter()
                    .for_each(|file| found.add(file)),
            }
        }
        for paths in found.modules.values_mut() {
            paths.sort();
        }
        found.tables.sort();
        found
    }

    fn add(&mut self, path: PathBuf) {
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            return;
        };
        if path.extension() == Some(OsStr::new(TABLE_EXTENSION)) {
            self.tables.push(path);
            return;
        }
        if let Some(stem) = files::module_stem(name) {
            let name = stem.replace('-', "_");
            self.modules.entry(name).or_default().push(path);
        }
    }

    /// The tables that are called as a module is: `nf-tables.lineinfo`, `nf-tables.ko.lineinfo`.
    fn tables_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PathBuf> + use<'a> {
        let is_of = move |path: &&PathBuf| {
            let stem = path.file_stem().and_then(OsStr::to_str);
            let stem = stem.and_then(|stem| stem.split(".ko").next());
            stem.is_some_and(|stem| stem.replace('-', "_") == name)
        };
        self.tables.iter().filter(is_of).cloned()
    }

    fn of(&self, name: &str) -> Vec<PathBuf> {
        self.modules.get(name).cloned().unwrap_or_default()
    }

    /// A table of the same build as some symbols.
    fn table_of(&self, symbols: &Symbols) -> Option<(PathBuf, BlobFile)> {
        let own = symbols.build_id().filter(|own| !own.is_empty())?;
        let stem = symbols.path().file_stem()?;
        let of_name = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.starts_with(stem.as_encoded_bytes())
        };
        let tables = self.tables.iter().filter(of_name);
        let mut opened = tables.filter_map(|path| Some((path.clone(), BlobFile::open(path).ok()?)));
        opened.find(|(_, blob)| blob.table().layout().build_id() == own)
    }
}
