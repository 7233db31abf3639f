//! The kernel command line: the parameters of this kernel, and those that are for init.

use lineinfo_core::device::{IDLE_MS_DEFAULT, Policy};

use super::params::{Parameter, integer, memparse, next_arg, same_name};
use crate::kernel::cpu::CPUS_MAX;
use crate::kernel::lockdown::Lockdown;
use crate::kernel::printk::CONSOLE_LOGLEVEL_DEFAULT;
use crate::machine::page_alloc::PAGE_SIZE;

/// The values of all parameters of this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// `lineinfo=`.
    pub(crate) lineinfo: Policy,
    /// `lineinfo.max=`: the largest blob taken, in bytes.
    pub(crate) lineinfo_max_bytes: u64,
    /// `lineinfo.timeout=`: seconds without a request after which a loader can lose the device.
    pub(crate) lineinfo_idle_s: u64,
    /// `lineinfo.inlines=`: traces have lines for inlined functions.
    pub(crate) lineinfo_inlines: bool,
    /// `lockdown=`.
    pub(crate) lockdown: Lockdown,
    /// `mem=`: memory of the machine, in bytes.
    pub(crate) mem_bytes: u64,
    /// `maxcpus=`.
    pub(crate) maxcpus: usize,
    /// `nokaslr`.
    pub(crate) nokaslr: bool,
    /// `loglevel=`.
    pub(crate) loglevel: u8,
    /// `panic=`, in seconds.
    pub(crate) panic_s: i64,
    /// `oops=panic`, `panic_on_oops=1`.
    pub(crate) panic_on_oops: bool,
    /// `load=`.
    pub(crate) load: bool,
    /// `watchdog_thresh=`, in seconds; 0 for no watchdog, as with `nowatchdog`.
    pub(crate) watchdog_s: u64,
    /// `nmi_watchdog=panic`.
    pub(crate) watchdog_panic: bool,
    /// `fail_nth=`: which memory operation fails; 0 for none.
    pub(crate) fail_nth: u64,
}

impl Parameters {
    /// The default values.
    pub(crate) const DEFAULT: Self = Self {
        lineinfo: Policy::Off,
        lineinfo_max_bytes: 16 << 20,
        lineinfo_idle_s: IDLE_MS_DEFAULT / 1000,
        lineinfo_inlines: true,
        lockdown: Lockdown::None,
        mem_bytes: 64 << 20,
        maxcpus: 2,
        nokaslr: false,
        loglevel: CONSOLE_LOGLEVEL_DEFAULT,
        panic_s: 0,
        panic_on_oops: false,
        load: false,
        watchdog_s: 10,
        watchdog_panic: false,
        fail_nth: 0,
    };

    /// Sets a parameter; `None` if this kernel has none of that name, and an error if the value is
    /// bad: what was expected.
    fn set(&mut self, parameter: Parameter<'_>) -> Option<Result<(), &'static str>> {
        let is = |name| same_name(parameter.name, name);
        let value = parameter.value.unwrap_or("");
        let result = if is("lineinfo") {
            let policy = match value {
                "on" => Some(Policy::On),
                "off" => Some(Policy::Off),
                "never" => Some(Policy::Never),
                _ => None,
            };
            store(&mut self.lineinfo, policy, "on, off or never")
        } else if is("lineinfo.max") {
            let size = memparse(value);
            store(&mut self.lineinfo_max_bytes, size, "a size like 16M")
        } else if is("lineinfo.timeout") {
            let seconds = integer(value).and_then(|seconds| u64::try_from(seconds).ok());
            let seconds = seconds.filter(|seconds| *seconds > 0);
            store(
                &mut self.lineinfo_idle_s,
                seconds,
                "a number of seconds from 1",
            )
        } else if is("lineinfo.inlines") {
            let inlines = switch(value, "on", "off");
            store(&mut self.lineinfo_inlines, inlines, "on or off")
        } else if is("lockdown") {
            let level = Lockdown::from_parameter(value);
            store(&mut self.lockdown, level, "integrity or confidentiality")
        } else if is("mem") {
            let size = memparse(value).filter(|size| *size >= PAGE_SIZE as u64);
            store(&mut self.mem_bytes, size, "a size like 64M, at least 4K")
        } else if is("maxcpus") {
            let count = integer(value).and_then(|count| usize::try_from(count).ok());
            let count = count.filter(|count| (1..=CPUS_MAX).contains(count));
            store(&mut self.maxcpus, count, "a number from 1 to 64")
        } else if is("loglevel") {
            let level = integer(value).and_then(|level| u8::try_from(level).ok());
            let level = level.filter(|level| *level <= 15);
            store(&mut self.loglevel, level, "a number from 0 to 15")
        } else if is("panic") {
            store(&mut self.panic_s, integer(value), "a number of seconds")
        } else if is("oops") {
            let panic = (value == "panic").then_some(true);
            store(&mut self.panic_on_oops, panic, "panic")
        } else if is("panic_on_oops") {
            store(&mut self.panic_on_oops, switch(value, "1", "0"), "0 or 1")
        } else if is("load") {
            store(&mut self.load, switch(value, "on", "off"), "on or off")
        } else if is("watchdog_thresh") {
            let seconds = integer(value).and_then(|seconds| u64::try_from(seconds).ok());
            let seconds = seconds.filter(|seconds| *seconds <= 60);
            store(&mut self.watchdog_s, seconds, "a number from 0 to 60")
        } else if is("nmi_watchdog") {
            let panic = switch(value, "panic", "nopanic");
            store(&mut self.watchdog_panic, panic, "panic or nopanic")
        } else if is("fail_nth") {
            let nth = integer(value).and_then(|nth| u64::try_from(nth).ok());
            store(&mut self.fail_nth, nth, "a number from 0")
        } else if is("nowatchdog") && parameter.value.is_none() {
            self.watchdog_s = 0;
            Ok(())
        } else if is("nokaslr") && parameter.value.is_none() {
            self.nokaslr = true;
            Ok(())
        } else {
            return None;
        };
        Some(result)
    }
}

const _: () = assert!(CPUS_MAX == 64, "the text above says so");

fn switch(value: &str, on: &str, off: &str) -> Option<bool> {
    (value == on || value == off).then_some(value == on)
}

fn store<T>(target: &mut T, value: Option<T>, expected: &'static str) -> Result<(), &'static str> {
    *target = value.ok_or(expected)?;
    Ok(())
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// All of it.
    pub(crate) text: String,
    /// `lineinfo.key=`: the key that tables must be signed with, or the file that has it. It is kept
    /// as it is: a bad one must not be as good as none.
    pub(crate) lineinfo_key: Option<String>,
    /// The parameters of the kernel.
    pub(crate) parameters: Parameters,
    /// Its errors, for the log.
    pub(crate) complaints: Vec<String>,
    /// Parameters that the kernel does not know, for the log: they go to init.
    pub(crate) unknown: Vec<String>,
    /// Arguments of init.
    pub(crate) init_arguments: Vec<String>,
    /// Environment of init.
    pub(crate) init_environment: Vec<String>,
}

impl CommandLine {
    /// Parses the arguments of the process; one with white space is quoted, as boot loaders do.
    pub(crate) fn from_arguments(arguments: &[String]) -> Self {
        let quoted = arguments.iter().map(|argument| {
            if argument.contains(char::is_whitespace) && !argument.contains('"') {
                format!("\"{argument}\"")
            } else {
                argument.clone()
            }
        });
        Self::parse(quoted.collect::<Vec<_>>().join(" "))
    }

    fn parse(text: String) -> Self {
        let mut line = Self {
            text: String::new(),
            lineinfo_key: None,
            parameters: Parameters::DEFAULT,
            complaints: Vec::new(),
            unknown: Vec::new(),
            init_arguments: Vec::new(),
            init_environment: Vec::new(),
        };
        let mut rest = text.as_str();
        while let Some((parameter, after)) = next_arg(rest) {
            rest = after;
            if parameter.text == "--" {
                break;
            }
            line.take(parameter);
        }
        line.unknown.extend_from_slice(&line.init_arguments);
        line.unknown.extend_from_slice(&line.init_environment);
        // All after `--` is for init, and is not reported as unknown.
        while let Some((parameter, after)) = next_arg(rest) {
            rest = after;
            line.init_arguments.push(parameter.text.to_owned());
        }
        line.text = text;
        line
    }

    fn take(&mut self, parameter: Parameter<'_>) {
        let (name, text) = (parameter.name, parameter.text);
        if same_name(name, "lineinfo.key") {
            self.lineinfo_key = Some(parameter.value.unwrap_or("").to_owned());
            return;
        }
        let before = self.parameters;
        match self.parameters.set(parameter) {
            Some(Ok(())) => {}
            Some(Err(expected)) => {
                debug_assert_eq!(before, self.parameters, "a bad value changes nothing");
                self.complaints.push(format!(
                    "bad value in '{text}': expected {expected}; the value before it is kept"
                ));
            }
            None if name.starts_with("lineinfo.") => {
                self.complaints.push(format!(
                    "lineinfo: unknown parameter '{name}' ignored; there are lineinfo.inlines, lineinfo.key, lineinfo.max and lineinfo.timeout"
                ));
            }
            // A name with a dot is for a module that is not loaded (`unknown_bootoption`).
            None if name.contains('.') => {}
            None if parameter.value.is_some() => {
                // The last one wins in an environment as well.
                let same = |earlier: &String| earlier.split('=').next() == Some(name);
                self.init_environment.retain(|earlier| !same(earlier));
                self.init_environment.push(text.to_owned());
            }
            None => self.init_arguments.push(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> CommandLine {
        CommandLine::parse(text.to_owned())
    }

    #[test]
    fn known_parameters_and_the_last_one_wins() {
        let line = parse(
            "lineinfo=on mem=1G lineinfo=never loglevel=0x3 panic=-1 nokaslr maxcpus=8 lineinfo.max=4k lineinfo.timeout=5 lineinfo.inlines=off lineinfo.key=a lineinfo.key=c lockdown=integrity oops=panic load=on watchdog-thresh=3 nmi_watchdog=panic fail_nth=3",
        );
        assert_eq!(
            line.parameters,
            Parameters {
                lineinfo: Policy::Never,
                lineinfo_max_bytes: 4096,
                lineinfo_idle_s: 5,
                lineinfo_inlines: false,
                lockdown: Lockdown::Integrity,
                mem_bytes: 1 << 30,
                maxcpus: 8,
                nokaslr: true,
                loglevel: 3,
                panic_s: -1,
                panic_on_oops: true,
                load: true,
                watchdog_s: 3,
                watchdog_panic: true,
                fail_nth: 3,
            }
        );
        assert_eq!(line.lineinfo_key.as_deref(), Some("c"));
        assert_eq!(line.complaints, [""; 0]);
        assert_eq!(line.unknown, [""; 0]);
    }

    #[test]
    fn bad_values_are_named_and_change_nothing() {
        for bad in [
            "lineinfo=yes",
            "lineinfo",
            "mem=1",
            "mem=lots",
            "maxcpus=0",
            "maxcpus=65",
            "loglevel=16",
            "panic=soon",
            "panic=",
            "oops=die",
            "panic_on_oops=yes",
            "load=1",
            "watchdog_thresh=61",
            "nmi_watchdog=1",
            "lockdown=none",
            "lockdown=",
            "fail_nth=-1",
            "lineinfo.max=-1",
            "lineinfo.timeout=0",
            "lineinfo.inlines=1",
            "lineinfo.min=1",
        ] {
            let line = parse(bad);
            assert_eq!(line.parameters, Parameters::DEFAULT, "{bad}");
            assert_eq!(line.complaints.len(), 1, "{bad}");
            assert!(line.complaints[0].contains(bad.split('=').next().unwrap_or(bad)));
            assert_eq!(line.unknown, [""; 0], "{bad}");
        }
    }

    #[test]
    fn the_rest_is_for_init() {
        let line = parse("ro a=1 usb.delay=3 a=2 nokaslr=1 -- b=3 loglevel=1 \"c d\" -- e");
        assert_eq!(line.parameters, Parameters::DEFAULT);
        assert_eq!(line.unknown, ["ro", "a=2", "nokaslr=1"]);
        assert_eq!(
            line.init_arguments,
            ["ro", "b=3", "loglevel=1", "c d", "--", "e"]
        );
        assert_eq!(line.init_environment, ["a=2", "nokaslr=1"]);
    }

    #[test]
    fn an_argument_with_a_space_stays_one_parameter() {
        let arguments = ["a=b c".to_owned(), "d=\"e f\"".to_owned()];
        let line = CommandLine::from_arguments(&arguments);
        assert_eq!(line.text, "\"a=b c\" d=\"e f\"");
        assert_eq!(line.init_environment, ["a=b c", "d=\"e f\""]);
    }
}
