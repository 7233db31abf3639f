//! The tour: the three uses of lineinfo, shown with real processes.
//!
//! ```sh
//! cargo run --release --bin tour
//! ```
//!
//! Every step says what it does, shows what is printed, and checks that it is what it should be;
//! the first that is not ends the tour with exit status 1.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use lineinfo_tests::{
    Binaries, Frame, Kernel, frames, meminfo_kb, memory_of_table_kb, resident_kb, stdout_of,
};
use object::{Object, ObjectSection};

/// Fields of meminfo that a load changes and an unload must restore.
const MEMINFO: [&str; 4] = ["MemTotal", "MemFree", "VmallocUsed", "Lineinfo"];

/// Shows the three uses of lineinfo with real processes: a table that is loaded late and unloaded, a
/// boot with a table that the image carries, and what is refused.
///
/// Builds lineinfo and sim-kernel first. Needs neither root nor network, leaves nothing behind, and
/// takes some seconds. Each step checks what it shows; the first that differs ends the tour with exit
/// status 1.
#[derive(Debug, Parser)]
struct Args {}

fn main() -> Result<()> {
    let Args {} = Args::parse();
    // Cargo looks for its configuration, in which frame pointers are switched on, from here.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::set_current_dir(&root).with_context(|| root.display().to_string())?;
    println!("Building lineinfo and sim-kernel…");
    let tour = Tour {
        binaries: Binaries::build(true)?,
        directory: tempfile::tempdir().context("a temporary directory")?,
    };
    tour.build_a_table()?;
    tour.load_late_and_unload()?;
    tour.boot_with_and_without()?;
    tour.refused_loads()?;
    println!("\nAll steps showed what they should.");
    Ok(())
}

struct Tour {
    binaries: Binaries,
    directory: tempfile::TempDir,
}

fn heading(text: &str) {
    println!("\n== {text}\n");
}

fn show(lines: &[String]) {
    for line in lines {
        println!("    {line}");
    }
}

impl Tour {
    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Runs the loader, and shows the command and what it prints.
    fn lineinfo(&self, args: &[&str]) -> Result<Output> {
        println!("$ lineinfo {}", args.join(" "));
        let output = self.binaries.lineinfo(args)?;
        for stream in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(stream);
            text.lines().for_each(|line| println!("    {line}"));
        }
        Ok(output)
    }

    fn boot(&self, image: &Path, command_line: &[&str]) -> Result<Kernel> {
        println!("$ {} {}", image.display(), command_line.join(" "));
        Kernel::boot(image, Path::new(&self.path("kernel.sock")), command_line)
    }

    fn build_a_table(&self) -> Result<()> {
        heading("Build a table from the kernel's own debug information");
        let kernel = self.binaries.sim_kernel.display().to_string();
        stdout_of(self.lineinfo(&["build", &kernel, "-o", &self.path("kernel.lineinfo")])?)?;
        let verify = self.lineinfo(&[
            "verify",
            &self.path("kernel.lineinfo"),
            "--against",
            &kernel,
        ])?;
        ensure!(verify.status.success(), "the table differs from its image");
        Ok(())
    }

    fn load_late_and_unload(&self) -> Result<()> {
        heading("Boot with lineinfo=off: the slot is empty, traces are bare");
        let mut kernel = self.boot(&self.binaries.sim_kernel, &["lineinfo=off"])?;
        let device = kernel.socket().display().to_string();
        let device = ["--device", &device];
        // The first trace touches pages of code that no later one does.
        kernel.command("sysrq w")?;
        let trace = kernel.command("sysrq w")?;
        show(&trace);
        check_frames(&trace, false)?;
        let before = kernel.command("meminfo")?;
        show(&before);
        let resident_before = resident_kb(kernel.pid())?;
        let ram_before = kernel.resident_ram_kb()?;

        heading("Load the table from user space: the same traces, annotated");
        stdout_of(
            self.lineinfo(&[&["load", &self.path("kernel.lineinfo")], &device[..]].concat())?,
        )?;
        let trace = kernel.command("sysrq w")?;
        show(&trace);
        check_frames(&trace, true)?;
        let loaded = kernel.command("meminfo")?;
        show(&loaded);
        let table_kb = meminfo_kb(&loaded, "Lineinfo")?;
        let expected_kb = memory_of_table_kb(Path::new(&self.path("kernel.lineinfo")))?;
        ensure!(
            table_kb == expected_kb,
            "a table that should take {expected_kb} kB takes {table_kb} kB"
        );
        ensure!(
            meminfo_kb(&before, "MemFree")? - meminfo_kb(&loaded, "MemFree")? == table_kb,
            "MemFree did not fall by {table_kb} kB"
        );
        let resident_loaded = resident_kb(kernel.pid())?;
        let ram_loaded = kernel.resident_ram_kb()?;
        ensure!(
            ram_loaded == meminfo_kb(&loaded, "VmallocUsed")?,
            "the host counts {ram_loaded} kB of RAM in use"
        );

        heading("Unload it: bare again, and the memory is back, to the page");
        stdout_of(self.lineinfo(&[&["unload"], &device[..]].concat())?)?;
        let trace = kernel.command("sysrq w")?;
        show(&trace);
        check_frames(&trace, false)?;
        let after = kernel.command("meminfo")?;
        show(&after);
        for field in MEMINFO {
            let (before, after) = (meminfo_kb(&before, field)?, meminfo_kb(&after, field)?);
            ensure!(
                before == after,
                "{field}: {before} kB before, {after} kB after"
            );
        }
        let resident_after = resident_kb(kernel.pid())?;
        let ram_after = kernel.resident_ram_kb()?;
        println!("\n    As the host sees it      before     loaded      after");
        println!("    RAM of the kernel   {ram_before:>8} kB{ram_loaded:>8} kB{ram_after:>8} kB");
        println!(
            "    whole process       {resident_before:>8} kB{resident_loaded:>8} kB{resident_after:>8} kB"
        );
        ensure!(
            ram_after == ram_before,
            "the host did not get every page back"
        );

        heading("A panic ends the machine as panic= says");
        let (log, status) = kernel.last_command("sysrq c")?;
        show(&log);
        check_frames(&log, false)?;
        ensure!(
            status.code() == Some(1),
            "panic=0 halts with status 1, not {status}"
        );
        println!("    {status}");
        Ok(())
    }

    fn boot_with_and_without(&self) -> Result<()> {
        heading("Append the table to the boot image");
        let image = self.directory.path().join("vmlinuz");
        fs::copy(&self.binaries.sim_kernel, &image).context("copy the image")?;
        let image_name = image.display().to_string();
        stdout_of(self.lineinfo(&[
            "append",
            &self.path("kernel.lineinfo"),
            "--to",
            &image_name,
        ])?)?;
        for (argument, annotated) in [("lineinfo=on", true), ("lineinfo=off", false)] {
            heading(&format!(
                "Boot that image with {argument}, and let it panic"
            ));
            let kernel = self.boot(&image, &[argument, "panic=-1"])?;
            show(&kernel.log.clone());
            let (log, status) = kernel.last_command("sysrq c")?;
            show(&log);
            check_frames(&log, annotated)?;
            ensure!(
                status.code() == Some(3),
                "panic=-1 reboots with status 3, not {status}"
            );
        }
        heading("Strip it: the image is what it was, to the byte");
        stdout_of(self.lineinfo(&["strip", &image_name])?)?;
        ensure!(
            fs::read(&image)? == fs::read(&self.binaries.sim_kernel)?,
            "the stripped image differs from the original"
        );
        Ok(())
    }

    fn refused_loads(&self) -> Result<()> {
        heading("What the kernel refuses, and why");
        let blob = fs::read(self.path("kernel.lineinfo"))?;
        let mut flipped = blob.clone();
        flipped[blob.len() / 2] ^= 1;
        fs::write(self.path("flipped.lineinfo"), flipped)?;
        let other = self.other_kernel()?;

        let mut kernel = self.boot(&self.binaries.sim_kernel, &[])?;
        let device = kernel.socket().display().to_string();
        let device = ["--device", &device];
        stdout_of(
            self.lineinfo(&[&["load", &self.path("kernel.lineinfo")], &device[..]].concat())?,
        )?;
        for (file, errno) in [
            (self.path("flipped.lineinfo"), "EBADMSG"),
            (other, "ESTALE"),
        ] {
            let refused = self.lineinfo(&[&["load", &file], &device[..]].concat())?;
            let said = String::from_utf8_lossy(&refused.stderr);
            ensure!(
                refused.status.code() == Some(4) && said.contains(errno),
                "{file} was not refused with {errno} and status 4"
            );
        }
        stdout_of(self.lineinfo(&[&["status"], &device[..]].concat())?)?;
        // The table that was there is there still.
        check_frames(&kernel.command("sysrq w")?, true)
    }

    /// A table of another build: that of the same image with another build-id.
    fn other_kernel(&self) -> Result<String> {
        let mut bytes = fs::read(&self.binaries.sim_kernel)?;
        let note = {
            let file = object::File::parse(&*bytes)?;
            let section = file.section_by_name(".note.gnu.build-id");
            section.and_then(|section| section.file_range())
        };
        let Some((offset, size)) = note else {
            bail!("the kernel has no build-id");
        };
        bytes[(offset + size - 1) as usize] ^= 1;
        fs::write(self.path("other-kernel"), bytes)?;
        let table = self.path("other.lineinfo");
        stdout_of(self.lineinfo(&["build", &self.path("other-kernel"), "-o", &table])?)?;
        Ok(table)
    }
}

/// Every frame of a trace must be annotated, or none.
fn check_frames(lines: &[String], annotated: bool) -> Result<()> {
    let frames = frames(lines);
    ensure!(frames.len() >= 8, "a trace of {} frames only", frames.len());
    for Frame {
        symbol, location, ..
    } in &frames
    {
        match location {
            Some(location) if !annotated => bail!("{symbol} is annotated with {location}"),
            None if annotated => bail!("{symbol} is bare"),
            _ => {}
        }
    }
    Ok(())
}
