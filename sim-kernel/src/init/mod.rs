//! The boot: from the command line to init. It puts the parts of the kernel together: each
//! registers its files, keys, commands, handlers and work when it is initialized here.

pub(crate) mod cmdline;
mod load;
mod params;
mod process;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cmdline::{CommandLine, Parameters};
use lineinfo_core::KeyId;
use lineinfo_core::device::{BuildId, Config, Policy, Trust};

use crate::block;
use crate::drivers::{console, kmsg};
use crate::fs::{Node, namei};
use crate::host::mount::Mount;
use crate::host::socket::Listener;
use crate::kernel::image::{self, Image};
use crate::kernel::kdb::command::{self, Command};
use crate::kernel::lineinfo::{self, LINEINFO, expected_of, inlines, key};
use crate::kernel::lockdown::{self, Lockdown};
use crate::kernel::meminfo::{self, MemInfo};
use crate::kernel::task::Current;
use crate::kernel::{
    cmdline as saved_cmdline, cpu, fault, kdb, kptr, lkdtm, module, nmi, panic, printk, pstore,
    smp, stacktrace, sysrq, timer, traps, watchdog,
};
use crate::machine;
use crate::machine::page_alloc::PAGE_SIZE;
use crate::mm::vmalloc;
use crate::printk;

pub(crate) use process::Input;

/// What the host passes to a kernel that boots.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The kernel command line.
    pub(crate) command_line: CommandLine,
    /// The image of another kernel, which tables and symbols are to be about.
    pub(crate) other_kernel: Option<PathBuf>,
    /// The source of init's commands.
    pub(crate) input: Input,
    /// The socket through which `/dev/lineinfo` can be used.
    pub(crate) listener: Option<Listener>,
    /// The directory of the host to mount all files on.
    pub(crate) mount: Option<Mount>,
    /// Panics and oopses enter kdb.
    pub(crate) kdb: bool,
    /// The file for crash records.
    pub(crate) pstore: Option<io::Result<File>>,
}

/// Boots, and runs init to its end.
#[inline(never)]
pub(crate) fn start_kernel(mut boot: Boot) -> ! {
    printk::start_clock();
    cpu::set_online(Current::new(0, 1, "init"));

    let parameters = boot.command_line.parameters;
    printk::set_console_loglevel(parameters.loglevel);
    panic::init(parameters.panic_s);
    printk!(
        Notice,
        "sim-kernel version {} (x86_64)",
        env!("CARGO_PKG_VERSION")
    );
    report_command_line(&boot.command_line);
    register();
    kdb::init(boot.kdb);
    if let Some(file) = boot.pstore.take() {
        pstore::open(file);
    }
    mem_init(parameters.mem_bytes);
    fault::init(parameters.fail_nth);
    let file = setup_image(parameters);
    if let Some(path) = &boot.other_kernel {
        assume_other_kernel(path);
    }
    interrupt_init(parameters);
    smp_init(parameters);
    lockdown::init(parameters.lockdown);
    let trust = setup_trust(parameters, boot.command_line.lineinfo_key.as_deref());
    lineinfo_init(parameters, trust, file.as_ref());
    drop(file);
    report_memory();
    rest_init(boot)
}

machine::init_text! {
/// Lets the parts that need nothing else at boot register what they own.
fn register() {
    sysrq::init();
    meminfo::init();
    module::init();
    module::procfs::init();
    module::sysfs::init();
    lkdtm::init();
    kptr::init();
    pstore::init();
    machine::module::init(
        |text| printk!(Info, "{text}"),
        || stacktrace::dump_stack(printk::Level::Info),
    );
    for files in [console::FILES, kmsg::FILES, block::FILES, LINEINFO_DEVICE, lineinfo::sysfs::NODES] {
        namei::register(files);
    }
    command::register(&KDB_LINEINFO);
    smp::register_work(|_cpu| LINEINFO.reclaim());
}
}

const LINEINFO_DEVICE: &[Node] = &[lineinfo::file::NODE, inlines::NODE];

static KDB_LINEINFO: Command = Command {
    name: "lineinfo",
    help: "the slot",
    run: |output| write!(output, "{}", LINEINFO.status()),
};

machine::init_text! {
fn report_command_line(line: &CommandLine) {
    saved_cmdline::init(&line.text);
    printk!(Notice, "Kernel command line: {}", line.text);
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
    machine::memory::init(|pages, errno| {
        printk!(Err, "mm: cannot free {pages} pages: {errno}; they stay in use");
    });
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
/// Reads what the image states about itself; without that traces have no names, and no table is
/// accepted.
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
/// Makes tables and symbols about another kernel. Its text is not in memory, so traces of this
/// kernel have no locations.
fn assume_other_kernel(path: &Path) {
    let read = File::open(path)
        .map_err(|error| error.to_string())
        .and_then(|file| Image::read_as_linked(file).map_err(|error| error.to_string()));
    match read {
        Ok(other) => {
            let other = image::set_of_tables(other);
            printk!(
                Notice,
                "--as {}: build-id {}, text {:#x}-{:#x}, {} functions",
                path.display(),
                BuildId::new(&other.build_id),
                other.text.start,
                other.text.end,
                other.symbols.len()
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
            "stacktrace: built without frame pointers, so traces are not complete; build with -C force-frame-pointers=yes (RUSTFLAGS replaces the flags of .cargo/config.toml)"
        );
    }
}
}

machine::init_text! {
fn interrupt_init(parameters: Parameters) {
    let installed = nmi::init()
        .and_then(|()| timer::init())
        .and_then(|()| traps::init(parameters.panic_on_oops));
    if let Err(errno) = installed {
        panic::panic(format_args!("no signals for interrupts: {errno}"));
    }
}
}

machine::init_text! {
fn smp_init(parameters: Parameters) {
    let count = parameters.maxcpus;
    load::init(parameters.load);
    if let Err(error) = smp::init(count) {
        printk!(
            Warning,
            "smp: cannot start {count} CPUs: {error}; boot with a smaller maxcpus="
        );
    }
    let online = cpu::online();
    printk!(Info, "smp: Brought up 1 node, {online} CPUs");
    let threshold = Duration::from_secs(parameters.watchdog_s);
    if let Err(error) = watchdog::init(threshold, parameters.watchdog_panic) {
        printk!(Warning, "watchdog: cannot start its thread: {error}");
    }
}
}

machine::init_text! {
/// Whose tables are taken. With a key that cannot be read it is nobody's: that is not the same as no
/// key.
fn setup_trust(parameters: Parameters, key: Option<&str>) -> Trust {
    match (key, parameters.lockdown) {
        (None, Lockdown::None) => Trust::Anybody,
        (None, Lockdown::Integrity | Lockdown::Confidentiality) => {
            printk!(Warning, "lineinfo: locked down without lineinfo.key=, no table is taken");
            Trust::Nobody
        }
        (Some(value), _) => match key::read(value) {
            Ok(key) => {
                printk!(Info, "lineinfo: tables must be signed by key {}", KeyId::of(&key));
                Trust::Key(key)
            }
            Err(error) => {
                printk!(Err, "lineinfo.key={value}: {error}; no table is taken");
                Trust::Nobody
            }
        },
    }
}
}

machine::init_text! {
fn lineinfo_init(parameters: Parameters, trust: Trust, image: Option<&File>) {
    let config = Config {
        policy: parameters.lineinfo,
        max_bytes: parameters.lineinfo_max_bytes,
        trust,
        idle_ms: parameters.lineinfo_idle_s.saturating_mul(1000),
    };
    inlines::set(parameters.lineinfo_inlines);
    LINEINFO.init(config, expected_of(image::of_tables()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::namei::{DirectoryEntry, directory};

    #[test]
    fn the_parts_register_their_files() {
        saved_cmdline::init("");
        register();
        let names = |path| directory(path).into_keys().collect::<Vec<_>>();
        assert_eq!(names(""), ["dev", "proc", "sys"]);
        assert_eq!(names("/dev"), ["console", "kmsg", "lineinfo", "ram0"]);
        assert!(names("/sys").contains(&"module".to_owned()));
        assert!(names("/sys/module").is_empty());
        assert!(matches!(
            directory("/proc")["meminfo"],
            DirectoryEntry::File(node) if node.path == "/proc/meminfo"
        ));
    }
}
