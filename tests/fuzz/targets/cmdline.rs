//! Any bytes as a kernel command line: every parameter is taken, reported or left to init, and every
//! value is within its limits.
//!
//! The parser is a part of a binary, so its files are compiled into this one.
#![no_main]

use libfuzzer_sys::fuzz_target;

use init::cmdline::{CommandLine, Parameters};
use init::params::{next_arg, same_name};

#[path = "../../../sim-kernel/src/init"]
mod init {
    pub(crate) mod cmdline;
    pub(crate) mod params;
}

/// What the parser needs of the kernel.
mod kernel {
    pub(crate) mod cpu {
        pub(crate) const CPUS_MAX: usize = 64;
    }
    pub(crate) mod lockdown {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Lockdown {
            None,
            Integrity,
            Confidentiality,
        }

        impl Lockdown {
            pub(crate) fn from_parameter(value: &str) -> Option<Self> {
                match value {
                    "integrity" => Some(Self::Integrity),
                    "confidentiality" => Some(Self::Confidentiality),
                    _ => None,
                }
            }
        }
    }
    pub(crate) mod printk {
        pub(crate) const CONSOLE_LOGLEVEL_DEFAULT: u8 = 7;
    }
}

mod machine {
    pub(crate) mod page_alloc {
        pub(crate) const PAGE_SIZE: usize = 4096;
    }
}

fuzz_target!(|input: &[u8]| {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    // As the arguments of a process: none has a zero byte.
    let arguments: Vec<String> = text.split('\0').map(str::to_owned).collect();
    let line = CommandLine::from_arguments(&arguments);

    let Parameters {
        mem_bytes,
        maxcpus,
        loglevel,
        watchdog_s,
        lineinfo_idle_s,
        ..
    } = line.parameters;
    assert!(mem_bytes >= 4096);
    assert!((1..=64).contains(&maxcpus));
    assert!(loglevel <= 15);
    assert!(watchdog_s <= 60);
    assert!(lineinfo_idle_s > 0);

    // Each parameter before `--` has one fate, unless a later one of the same name replaces it.
    let mut rest = line.text.as_str();
    let mut is_for_init = false;
    while let Some((parameter, after)) = next_arg(rest) {
        assert!(after.len() < rest.len(), "it goes on");
        rest = after;
        if is_for_init {
            assert!(
                line.init_arguments
                    .iter()
                    .any(|argument| argument == parameter.text)
            );
        } else if parameter.text == "--" {
            is_for_init = true;
        } else if same_name(parameter.name, "lineinfo") && parameter.value == Some("maybe") {
            assert!(!line.complaints.is_empty());
        }
    }
    let unknown = line.unknown.len();
    assert!(unknown <= line.init_arguments.len() + line.init_environment.len());
});
