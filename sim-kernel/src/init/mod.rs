//! The boot: from the command line to init.

pub(crate) mod cmdline;
mod params;
mod process;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use cmdline::{CommandLine, Parameters};

use crate::host::mount::Mount;
use crate::host::socket::Listener;
use crate::kernel::image::{self, Image};
use crate::kernel::lineinfo::{LINEINFO, expected_of};
use crate::kernel::task::Identity;
use crate::kernel::{
    cpu, kdb, load, nmi, panic, printk, pstore, stacktrace, timer, traps, watchdog,
};
use crate::machine;
use crate::mm::page_alloc::PAGE_SIZE;
use crate::mm::vmalloc::{self, MemInfo};
use crate::printk;
use lineinfo_core::device::{BuildId, Config, Policy};

pub(crate) use process::Input;

static COMMAND_LINE: OnceLock<String> = OnceLock::new();

/// What the host gives to a kernel that boots.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The kernel command line.
    pub(crate) command_line: CommandLine,
    /// The image of another kernel, to be that in all that tables are about.
    pub(crate) identity: Option<PathBuf>,
    /// Where init's commands come from.
    pub(crate) input: Input,
    /// The socket behind which `/dev/lineinfo` can be reached.
    pub(crate) listener: Option<Listener>,
    /// The directory of the host on which all files can be seen.
    pub(crate) mount: Option<Mount>,
    /// Enter kdb at a panic or oops.
    pub(crate) kdb: bool,
    /// The file for crash records.
    pub(crate) pstore: Option<io::Result<File>>,
}

/// The command line as it was given.
pub(crate) fn saved_command_line() -> &'static str {
    COMMAND_LINE.get().map_or("", String::as_str)
}

/// Boots, and runs init to its end.
#[inline(never)]
pub(crate) fn start_kernel(mut boot: Boot) -> ! {
    printk::start_clock();
    cpu::set_online(Identity::new(0, 1, "init"));
    panic::catch_bugs();

    let parameters = boot.command_line.parameters;
    printk::set_console_loglevel(parameters.loglevel);
    panic::set_timeout(parameters.panic_s);
    traps::set_panic_on_oops(parameters.panic_on_oops);
    printk!(
        Notice,
        "sim-kernel version {} (x86_64)",
        env!("CARGO_PKG_VERSION")
    );
    parse_early_parameters(&boot.command_line);
    kdb::init(boot.kdb);
    if let Some(file) = boot.pstore.take() {
        pstore::init(file);
    }
    mem_init(parameters.mem_bytes);
    let file = setup_image(parameters);
    if let Some(path) = &boot.identity {
        assume_identity(path);
    }
    interrupt_init();
    smp_init(parameters);
    lineinfo_init(parameters, file.as_ref());
    drop(file);
    report_memory();
    rest_init(boot)
}

machine::init_text! {
fn parse_early_parameters(line: &CommandLine) {
    let text = COMMAND_LINE.get_or_init(|| line.text.clone());
    printk!(Notice, "Kernel command line: {text}");
    for complaint in &line.complaints {
        printk!(Warning, "{complaint}");
    }
    if !line.unknown.is_empty() {
        printk!(
            Notice,
            "Unknown kernel command line parameters \"{}\", will be passed to user space.",
            line.unknown.join(" ")
        );
    }
}
}

machine::init_text! {
fn mem_init(mem_bytes: u64) {
    let default = Parameters::DEFAULT.mem_bytes;
    let reserved = vmalloc::reserve(mem_bytes).or_else(|errno| {
        printk!(
            Warning,
            "mem={mem_bytes}: the host has no addresses for it ({errno}); using {default}"
        );
        vmalloc::reserve(default)
    });
    match reserved {
        Ok(arena) => {
            let arena = vmalloc::init(arena);
            let addresses = arena.addresses();
            printk!(
                Info,
                "mm: arena {:#x}-{:#x}, {} pages of {PAGE_SIZE} bytes",
                addresses.start,
                addresses.end,
                arena.total_pages()
            );
        }
        Err(errno) => panic::panic(format_args!("no addresses for the memory: {errno}")),
    }
}
}

machine::init_text! {
/// Reads what the image says about itself; without it traces have no names, and no table fits.
fn setup_image(parameters: Parameters) -> Option<File> {
    if parameters.nokaslr {
        printk!(Info, "KASLR disabled: 'nokaslr' on cmdline.");
    }
    let read = File::open(image::PATH).and_then(|file| Ok((file.try_clone()?, file)));
    let (file, again) = read
        .inspect_err(|error| printk!(Err, "cannot read the image: {error}"))
        .ok()?;
    match Image::read(again, machine::image_start()) {
        Ok(image) => {
            let image = image::init(image);
            printk!(
                Info,
                "KASLR: text {:#x}-{:#x}, slid by {:#x}",
                image.text.start,
                image.text.end,
                image.slide
            );
            check_image(image);
        }
        Err(error) => printk!(Err, "cannot read the image: {error}; traces have no names"),
    }
    Some(file)
}
}

machine::init_text! {
/// Takes the identity of another kernel: tables are those of its image, and so are symbols that
/// are asked for. Its text is not here, so traces stay what they are, without places.
fn assume_identity(path: &Path) {
    let read = File::open(path)
        .map_err(|error| error.to_string())
        .and_then(|file| Image::read_as_linked(file).map_err(|error| error.to_string()));
    match read {
        Ok(other) => {
            let other = image::assume(other);
            printk!(
                Notice,
                "identity: build-id {}, text {:#x}-{:#x}, {} functions of {}",
                BuildId::new(&other.build_id),
                other.text.start,
                other.text.end,
                other.symbols.len(),
                path.display()
            );
        }
        Err(error) => panic::panic(format_args!(
            "--as {}: {error}; name a vmlinux",
            path.display()
        )),
    }
}
}

machine::init_text! {
fn check_image(image: &Image) {
    let build_id = BuildId::new(&image.build_id);
    printk!(
        Info,
        "image: build-id {build_id}, {} functions",
        image.symbols.len()
    );
    if image.symbols.len() == 0 {
        printk!(
            Warning,
            "kallsyms: traces have no names; build without `strip`"
        );
    }
    if image.build_id.is_empty() {
        printk!(
            Warning,
            "lineinfo: the image has no build-id; link it with --build-id=sha1"
        );
    }
    if !stacktrace::frame_pointers_work() {
        printk!(
            Warning,
            "stacktrace: built without frame pointers, traces are not complete; build with -C force-frame-pointers=yes (RUSTFLAGS replaces what .cargo/config.toml says)"
        );
    }
}
}

machine::init_text! {
fn interrupt_init() {
    let installed = nmi::init().and_then(|()| timer::init());
    if let Err(errno) = installed.and_then(|()| traps::init()) {
        panic::panic(format_args!("no signals for interrupts: {errno}"));
    }
}
}

machine::init_text! {
fn smp_init(parameters: Parameters) {
    let count = parameters.maxcpus;
    load::set(parameters.load);
    if let Err(error) = cpu::smp_init(count) {
        printk!(
            Warning,
            "smp: cannot start {count} CPUs: {error}; boot with a smaller maxcpus="
        );
    }
    let online = cpu::online();
    printk!(Info, "smp: Brought up 1 node, {online} CPUs");
    let threshold = Duration::from_secs(parameters.watchdog_s);
    if let Err(error) = watchdog::init(threshold, parameters.watchdog_panic) {
        printk!(Warning, "watchdog: no thread for it: {error}");
    }
}
}

machine::init_text! {
fn lineinfo_init(parameters: Parameters, image: Option<&File>) {
    let config = Config {
        policy: parameters.lineinfo,
        max_bytes: parameters.lineinfo_max_bytes,
        idle_ms: parameters.lineinfo_idle_s.saturating_mul(1000),
    };
    LINEINFO.init(config, expected_of(image::identity()));
    match (parameters.lineinfo, image) {
        (Policy::On, Some(image)) => LINEINFO.load_from_image(image),
        (Policy::On, None) => {}
        (Policy::Off, _) => printk!(
            Info,
            "lineinfo: off, the slot is empty; late load is allowed"
        ),
        (Policy::Never, _) => printk!(Info, "lineinfo: never, the slot stays empty"),
    }
}
}

machine::init_text! {
fn report_memory() {
    let text = MemInfo::now().to_string();
    let line: Vec<&str> = text.split_whitespace().collect();
    printk!(Info, "mm: {}", line.join(" "));
}
}

#[inline(never)]
fn rest_init(boot: Boot) -> ! {
    LINEINFO.free_initmem();
    let mounted = boot.mount.is_some_and(Mount::open);
    let stay = mounted || boot.listener.is_some();
    if let Some(listener) = boot.listener {
        listener.open();
    }
    process::kernel_init(&boot.command_line, boot.input, stay)
}
