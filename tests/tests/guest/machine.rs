//! A guest: a stock kernel under QEMU, with the module, tables, and `tests/fixtures/linux/init`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use lineinfo_cli::extract::elf::ElfFile;
use lineinfo_cli::extract::extract;
use lineinfo_cli::extract::paths::Naming;
use lineinfo_core::Table;
use lineinfo_core::blob::{Encoding, Profile};
use lineinfo_tests::build_loader;
use object::{Object, ObjectSection};

use crate::oracle::{Oracle, symbolizer};

/// Modules of the kernel that a guest uses, where it has them; those that they need come with them.
const MODULES: [&str; 7] = [
    "loop",
    "lzo_rle",
    "nls_ascii",
    "nls_cp437",
    "overlay",
    "vfat",
    "zram",
];

/// Modules of file systems, networks and machines in a cloud.
const MODULES_OF_SYSTEM: [&str; 32] = [
    "bonding",
    "bridge",
    "btrfs",
    "cifs",
    "dm_crypt",
    "efivarfs",
    "ena",
    "fuse",
    "gve",
    "ip_tables",
    "isofs",
    "kvm",
    "nbd",
    "nf_conntrack",
    "nf_tables",
    "nfs",
    "nfsd",
    "nft_nat",
    "openvswitch",
    "raid1",
    "squashfs",
    "tcp_bbr",
    "tun",
    "veth",
    "vhost_net",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "vxlan",
    "wireguard",
    "xfs",
    "zstd",
];

/// The module that the guest with the package loads, too.
const EXTRA: &str = "xfs";

/// Where the module looks for tables, in a root file system.
const TABLES: &str = "lib/firmware/lineinfo";

/// How long a guest may run, and how much longer for each cycle of loads.
const BOOT_SECONDS_MAX: u32 = 300;
const CYCLE_SECONDS_MAX: u32 = 10;

/// A kernel that [`.ci/guest-kernel`] has fetched, with modules built for it and tables.
pub(crate) struct GuestKernel {
    /// Its name: `6.12.117+deb12-cloud-amd64`.
    pub(crate) release: String,
    directory: PathBuf,
    work: PathBuf,
    /// All modules of its package, packed.
    packaged: Modules,
    /// The modules that every guest has, and with the empty name the kernel.
    modules: Modules,
    /// Build-id of the kernel, in hexadecimal.
    pub(crate) build_id: String,
    oracle: OnceLock<Oracle>,
}

/// Modules by name.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// The files that are loaded.
    files: BTreeMap<String, PathBuf>,
    /// Files with debug information.
    dwarf: HashMap<String, PathBuf>,
}

impl Modules {
    /// Those of a package, and of that with their debug information.
    fn of_package(kernel: &Path) -> Result<Self> {
        let by_name = |directory: &str, ending: &str| -> Result<Vec<(String, PathBuf)>> {
            let files = files_below(&kernel.join(directory).canonicalize()?, ending)?;
            let named = files.into_iter().map(|path| (module_name(&path), path));
            Ok(named.collect())
        };
        Ok(Self {
            files: by_name("modules", "")?.into_iter().collect(),
            dwarf: by_name("dwarf/modules", ".ko")?.into_iter().collect(),
        })
    }

    fn debug_file(&self, name: &str) -> Result<PathBuf> {
        let path = self.dwarf.get(name).cloned();
        path.with_context(|| format!("no DWARF of {name}"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(said.into_owned())
}

/// The source package, unpacked.
fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-package");
        let unpack = || {
            if out.exists() {
                fs::remove_dir_all(&out)?;
            }
            fs::create_dir_all(&out)?;
            run(Command::new("make")
                .arg("-C")
                .arg(root().join("core/linux"))
                .args(["dist", &format!("OUT={}", out.display())]))?;
            let packages = files_below(&out, ".tar.gz")?;
            let [package] = &packages[..] else {
                bail!("{packages:?}: expected one source package");
            };
            run(Command::new("tar")
                .arg("-C")
                .arg(&out)
                .arg("-xzf")
                .arg(package))?;
            let name = package.file_name().and_then(|name| name.to_str());
            Ok(out.join(name.unwrap_or_default().trim_end_matches(".tar.gz")))
        };
        unpack().expect("a source package")
    })
}

fn files_below(directory: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut files_below(&path, ending)?);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The name of the module in a file.
fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split(".ko").next().unwrap_or_default();
    name.replace('-', "_")
}

impl GuestKernel {
    /// Builds the module for a kernel, and tables for it and its modules.
    pub(crate) fn prepare(directory: &Path) -> Result<Self> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let release = name.strip_prefix("linux-image-");
        let release = release.context("not a directory of .ci/guest-kernel")?;
        let work = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("guest")
            .join(release);
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        let directory = directory.canonicalize()?;
        let mut guest = Self {
            release: release.to_owned(),
            packaged: Modules::of_package(&directory)?,
            modules: Modules::default(),
            build_id: String::new(),
            oracle: OnceLock::new(),
            directory,
            work,
        };
        guest.build("lineinfo", package())?;
        guest.build("provoke", &root().join("tests/fixtures/linux"))?;
        let provoke = guest.module("provoke")?.to_owned();
        guest.modules.dwarf.insert("provoke".to_owned(), provoke);
        let found = guest.unpack(&MODULES)?;
        guest.modules.files.extend(found.files);
        guest.modules.dwarf.extend(found.dwarf);
        let vmlinux = guest.directory.join("dwarf/vmlinux").canonicalize()?;
        guest.modules.dwarf.insert(String::new(), vmlinux);
        for (name, path) in guest.dwarf().clone() {
            let id = guest.table(&path, Profile::Full, &guest.work.join("tables"))?;
            if name.is_empty() {
                fs::write(guest.work.join("tables").join("of.kernel"), &id)?;
                guest.table(&path, Profile::Calls, &guest.work.join("calls"))?;
                guest.build_id = id;
            }
        }
        Ok(guest)
    }

    /// The file of a module, as it is loaded.
    pub(crate) fn module(&self, name: &str) -> Result<&Path> {
        let path = self.modules.files.get(name);
        Ok(path.with_context(|| format!("no module {name}"))?)
    }

    /// Files with debug information: of the kernel by the empty name, of modules by theirs.
    pub(crate) fn dwarf(&self) -> &HashMap<String, PathBuf> {
        &self.modules.dwarf
    }

    /// What is known of the frames of the kernel and all its modules.
    pub(crate) fn oracle(&self) -> Result<&Oracle> {
        if self.oracle.get().is_none() {
            let mut paths = self.packaged.dwarf.clone();
            paths.extend(self.dwarf().clone());
            let oracle = Oracle::new(symbolizer().context("llvm-symbolizer")?, paths)?;
            self.oracle.get_or_init(|| oracle);
        }
        self.oracle.get().context("it was made")
    }

    pub(crate) fn is_arm64(&self) -> bool {
        self.release.ends_with("arm64")
    }

    /// Builds a module from a directory with a Kbuild file.
    fn build(&mut self, name: &str, sources: &Path) -> Result<()> {
        let directory = self.work.join(name);
        run(Command::new("cp").arg("-r").arg(sources).arg(&directory))?;
        let said = run(Command::new("make")
            .arg("-C")
            .arg(self.directory.join("build"))
            .arg(format!("M={}", directory.display()))
            // It would need pahole.
            .args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]))?;
        ensure!(
            !said.to_lowercase().contains("warning"),
            "{}: {said}",
            self.release
        );
        let path = directory.join(format!("{name}.ko"));
        self.modules.files.insert(name.to_owned(), path);
        Ok(())
    }

    /// Unpacks modules of the kernel, with those that they need and that are not there yet; names that
    /// its package does not have are left out.
    fn unpack(&self, names: &[&str]) -> Result<Modules> {
        let mut wanted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut found = Modules::default();
        while let Some(name) = wanted.pop() {
            if self.modules.files.contains_key(&name) || found.files.contains_key(&name) {
                continue;
            }
            let Some(path) = self.packaged.files.get(&name) else {
                continue;
            };
            let to = self.work.join(format!("{name}.ko"));
            if path.extension().is_some_and(|ending| ending == "xz") {
                let unpacked = fs::File::create(&to)?;
                let status = Command::new("xz")
                    .arg("-dc")
                    .arg(path)
                    .stdout(unpacked)
                    .status()?;
                ensure!(status.success(), "xz {}", path.display());
            } else {
                fs::copy(path, &to)?;
            }
            wanted.append(&mut needs(&to)?);
            let dwarf = self.packaged.debug_file(&name)?;
            found.dwarf.insert(name.clone(), dwarf);
            found.files.insert(name, to);
        }
        Ok(found)
    }

    /// Modules as they are in a system that is used, or those that `LINEINFO_GUEST_MODULES` names: `all`
    /// for all of the package.
    pub(crate) fn modules_of_system(&self) -> Result<Modules> {
        let named = std::env::var("LINEINFO_GUEST_MODULES").unwrap_or_default();
        let names: Vec<&str> = match &*named {
            "" => MODULES_OF_SYSTEM.to_vec(),
            "all" => self.packaged.files.keys().map(String::as_str).collect(),
            names => names.split_whitespace().collect(),
        };
        self.unpack(&names)
    }

    /// Boots to load modules that have tables as well; gives all that was printed.
    pub(crate) fn boot_modules(&self, modules: &Modules) -> Result<String> {
        self.boot("modules", "", |root| {
            let list: Vec<&str> = modules.files.keys().map(String::as_str).collect();
            fs::write(root.join("modules"), list.join("\n") + "\n")?;
            for (name, path) in &modules.files {
                fs::copy(path, self.modules_in(root).join(format!("{name}.ko")))?;
            }
            for path in modules.dwarf.values() {
                self.table(path, Profile::Full, &root.join(TABLES))?;
            }
            Ok(())
        })
    }

    /// Where modules are in a root file system.
    fn modules_in(&self, root: &Path) -> PathBuf {
        root.join("lib/modules").join(&self.release)
    }

    /// Makes a table in a directory, named after the build-id, which it gives.
    fn table(&self, image: &Path, profile: Profile, directory: &Path) -> Result<String> {
        let blob = blob(image, profile)?;
        let id = Table::parse(&blob)?.layout().build_id().to_owned();
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::create_dir_all(directory)?;
        fs::write(directory.join(format!("{id}.lineinfo")), blob)?;
        Ok(id)
    }

    /// The table of the kernel in a file, complete or of calls.
    pub(crate) fn table_path(&self, directory: &str) -> PathBuf {
        self.work
            .join(directory)
            .join(format!("{}.lineinfo", self.build_id))
    }

    /// Boots to do what `boot` says in `init`, with files that `add` adds to the root file system. Gives
    /// all that was printed.
    pub(crate) fn boot(
        &self,
        boot: &str,
        arguments: &str,
        add: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<String> {
        let root = self.work.join(format!("root-{boot}"));
        let (modules, tables) = (self.modules_in(&root), root.join(TABLES));
        for directory in ["bin", "proc", "sys", "dev", "calls"] {
            fs::create_dir_all(root.join(directory))?;
        }
        for directory in [&modules, &tables] {
            fs::create_dir_all(directory)?;
        }
        fs::copy(
            self.directory.join("busybox").canonicalize()?,
            root.join("bin/busybox"),
        )?;
        let init = self::root().join("tests/fixtures/linux/init");
        fs::copy(init, root.join("init"))?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        for (name, path) in &self.modules.files {
            fs::copy(path, modules.join(format!("{name}.ko")))?;
        }
        for file in files_below(&self.work.join("tables"), "")? {
            fs::copy(&file, tables.join(file.file_name().unwrap_or_default()))?;
        }
        fs::copy(self.table_path("calls"), root.join("calls/kernel.lineinfo"))?;
        if !self.is_arm64() {
            copy_loader(&root)?;
        }
        add(&root)?;
        let archive = self.work.join(format!("{boot}.cpio"));
        let packed = Command::new("sh")
            .current_dir(&root)
            .args(["-c", "find . | cpio --quiet -o -H newc -F \"$0\""])
            .arg(&archive)
            .status()?;
        ensure!(packed.success(), "cpio");
        fs::remove_dir_all(&root)?;
        self.run(boot, &format!("lineinfo.enable=1 {arguments}"), &archive)
    }

    /// Installs the package in a root file system of [`.ci/guest-root`], and boots with it to do what
    /// `init-package` says. Gives all that was printed.
    pub(crate) fn boot_package(&self, root: &Path) -> Result<String> {
        let files = self.work.join("files");
        let home = files.join("root");
        for directory in [&home, &files.join("usr/local/bin")] {
            fs::create_dir_all(directory)?;
        }
        let extra = self.unpack(&[EXTRA])?;
        for (name, image) in [
            ("kernel", &self.dwarf()[""]),
            ("provoke", &self.dwarf()["provoke"]),
            (EXTRA, &extra.debug_file(EXTRA)?),
        ] {
            let blob = blob(image, Profile::Calls)?;
            fs::write(home.join(format!("{name}.lineinfo")), blob)?;
        }
        fs::copy(self.module("provoke")?, home.join("provoke.ko"))?;
        fs::copy(
            self::root().join("tests/fixtures/linux/init-package"),
            files.join("init"),
        )?;
        run(Command::new("strip")
            .arg("-o")
            .arg(files.join("usr/local/bin/lineinfo"))
            .arg(loader()))?;
        let archive = self.work.join("package.cpio");
        fs::write(&archive, [])?;
        let said = run(
            Command::new(self::root().join("tests/fixtures/linux/pack-root"))
                .arg(root)
                .arg(debian_package()?)
                .args([&files, &archive]),
        )?;
        println!("{said}");
        fs::remove_dir_all(&files)?;
        self.run("package", "", &archive)
    }

    /// Boots with an initramfs, which is removed.
    fn run(&self, boot: &str, arguments: &str, archive: &Path) -> Result<String> {
        let cycles = arguments
            .split_once("cycles=")
            .map_or("0", |(_, cycles)| cycles);
        let cycles: u32 = cycles.parse().context("a number of cycles")?;
        let seconds_max = BOOT_SECONDS_MAX + CYCLE_SECONDS_MAX * cycles;
        let [program, machine, cpu] = if self.is_arm64() {
            ["qemu-system-aarch64", "virt", "cortex-a57"]
        } else {
            ["qemu-system-x86_64", "q35", "max"]
        };
        // It stays for whoever looks into a failure.
        let log = self.work.join(format!("{boot}.log"));
        let console = if self.is_arm64() { "ttyAMA0" } else { "ttyS0" };
        // no_timer_check: where the host is busy, the check of the timer would stop the boot.
        let arguments = format!(
            "console={console} no_timer_check ignore_loglevel log_buf_len=16M printk.devkmsg=on panic=-1 \
             boot={boot} {arguments}"
        );
        let output = Command::new("timeout")
            .arg(seconds_max.to_string())
            .args([program, "-M", machine, "-cpu", cpu])
            .args(["-accel", "tcg,thread=single", "-smp", "2", "-m", "2048"])
            .args([
                "-nographic",
                "-no-reboot",
                "-monitor",
                "none",
                "-nic",
                "none",
            ])
            .arg("-kernel")
            .arg(self.directory.join("vmlinuz"))
            .arg("-initrd")
            .arg(archive)
            .args(["-append", &arguments])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log)?)
            .output()?;
        fs::remove_file(archive)?;
        let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        ensure!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(log)
    }
}

/// What a module needs, by name.
fn needs(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path)?;
    let object = object::File::parse(&*bytes)?;
    let info = object.section_by_name(".modinfo").context("no .modinfo")?;
    let data = info.data()?;
    let line = data
        .split(|byte| *byte == 0)
        .find_map(|line| line.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    let names = names.split(',').filter(|name| !name.is_empty());
    Ok(names.map(|name| name.replace('-', "_")).collect())
}

/// A table with inlined functions.
fn blob(image: &Path, profile: Profile) -> Result<Vec<u8>> {
    let file = ElfFile::open(image)?;
    let elf = file.parse()?;
    let mut extracted = extract(&elf, &Naming::default(), &())?;
    extracted.add_inlines(&elf, &Naming::default(), &())?;
    if profile == Profile::Calls {
        extracted.reduce_to_calls(&elf)?;
    }
    Ok(extracted.encode(Encoding::Packed)?)
}

/// The Debian package, built from the source package.
fn debian_package() -> Result<&'static Path> {
    static PACKAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        run(Command::new("dpkg-buildpackage")
            .current_dir(package())
            .args(["-b", "-us", "-uc"]))?;
        let directory = package().parent().context("a directory")?;
        let mut packages = files_below(directory, ".deb")?;
        packages.pop().context("no package")
    };
    let built = PACKAGE.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The loader, for this machine.
pub(crate) fn loader() -> &'static Path {
    static LOADER: OnceLock<PathBuf> = OnceLock::new();
    LOADER.get_or_init(|| build_loader(true).expect("the loader"))
}

/// Copies the loader, and what it is linked with, for a guest of this machine's architecture.
fn copy_loader(root: &Path) -> Result<()> {
    let loader = loader();
    let to = root.join("bin/lineinfo");
    run(Command::new("strip").arg("-o").arg(&to).arg(loader))?;
    let libraries = run(Command::new("ldd").arg(loader))?;
    for path in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a directory")?)?;
        fs::copy(path, to)?;
    }
    Ok(())
}
