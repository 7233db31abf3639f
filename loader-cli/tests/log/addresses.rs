//! Addresses without a symbol, in traces of kernels without kallsyms and in what tools print.

use std::collections::BTreeSet;

use crate::synthetic::{Function, SLIDE, Synthetic, TEXT, decode};

/// `do_a` at `_text`, `do_b` 0x20 bytes after it, and `do_c` after that.
fn kernel() -> Synthetic {
    let functions = [("do_a", 0x20), ("do_b", 0x30), ("do_c", 0x10)];
    let functions = functions.map(|(name, size)| Function::new(name, size));
    Synthetic::new(BTreeSet::from(functions))
}

/// Decodes a log in which `A+1f` stands for an address of the moved kernel.
fn decoded(kernel: &Synthetic, arguments: &[&str], log: &str) -> (String, Option<i32>) {
    let mut log = log.to_owned();
    while let Some(at) = log.find("A+") {
        let offset = u64::from_str_radix(&log[at + 2..at + 4], 16).expect("two digits");
        let address = format!("{:x}", TEXT + SLIDE + offset);
        log.replace_range(at..at + 4, &address);
    }
    let mut both = Vec::new();
    for of_kernel in [kernel.arguments(), kernel.arguments_alone()] {
        let arguments = arguments.iter().map(|one| (*one).to_owned());
        let all: Vec<String> = of_kernel.into_iter().chain(arguments).collect();
        let output = decode(&all, log.as_bytes());
        let text = String::from_utf8(output.stdout).expect("text");
        let text = text.replace(&format!("{:x}", (TEXT + SLIDE) >> 8), "A+");
        both.push((text, output.status.code()));
    }
    assert_eq!(both[0], both[1], "symbols of a list, and of the table");
    both.swap_remove(0)
}

const SLIDE_ARGUMENT: &[&str] = &["--slide", "0x1a000000"];

#[test]
fn addresses_of_traces_get_function_and_line() {
    let kernel = kernel();
    let log =
        "RIP: 0010:[<A+05>]\n [<A+20>]\n [<A+24>] ?\n ? 0xA+55\n 0xA+21\nRAX: A+05 RBX: A+05\n";
    let (out, status) = decoded(&kernel, SLIDE_ARGUMENT, log);
    assert_eq!(
        out,
        "RIP: 0010:[<A+05>] do_a+0x5/0x20 (s0.c:6)\n \
         [<A+20>] do_a+0x20/0x20 (s0.c:32)\n \
         [<A+24>] do_b+0x4/0x30 (s1.c:4) ?\n \
         ? 0xA+55 do_c+0x5/0x10 (s2.c:5)\n \
         0xA+21 do_b+0x1/0x30 (s1.c:1)\n\
         RAX: A+05 RBX: A+05\n"
    );
    assert_eq!(status, Some(0));
    // Not without the distance.
    let (out, _) = decoded(&kernel, &[], log);
    assert!(!out.contains(".c:"), "{out}");
}

#[test]
fn the_log_says_how_far_the_kernel_was_moved() {
    let kernel = kernel();
    let trace = " [<A+24>]\n";
    let said = " [<A+24>] do_b+0x4/0x30 (s1.c:4)\n";
    let offset = "Kernel Offset: 0x1a000000 from 0xffffffff81000000 (relocation range: x)\n";
    let other = "Kernel Offset: 0x1a000010 from 0xffffffff81000000 (relocation range: x)\n";
    let boot = "Linux version 6.12.0 (x@y)\n";
    // A panic says it after its trace; it is of one boot.
    let log = [trace, offset, trace, boot, trace].concat();
    let expected = [said, offset, said, boot, trace].concat();
    assert_eq!(decoded(&kernel, &[], &log).0, expected);
    let log = [boot, trace, offset, boot, trace, other].concat();
    let moved = " [<A+24>] do_a+0x14/0x20 (s0.c:20)\n";
    let expected = [boot, said, offset, boot, moved, other].concat();
    assert_eq!(decoded(&kernel, &[], &log).0, expected);
    // What is given counts for more.
    let log = [trace, other].concat();
    let expected = [said, other].concat();
    assert_eq!(decoded(&kernel, SLIDE_ARGUMENT, &log).0, expected);
}

#[test]
fn perf_script_has_the_instruction_and_then_return_addresses() {
    let (out, status) = decoded(
        &kernel(),
        SLIDE_ARGUMENT,
        "cat  1234 [001]  10.000000:  1 cycles:\n\
         \tA+24 do_b+0x4 ([kernel.kallsyms])\n\
         \tA+0a [unknown] ([kernel.kallsyms])\n\
         \t    7f0000001234 main+0x4 (/usr/bin/cat)\n\
         \n\
         cat  1234 [001]  10.000001:  1 cycles:\n\
         \tA+24 do_b+0x4 ([kernel.kallsyms])\n",
    );
    assert_eq!(
        out,
        "cat  1234 [001]  10.000000:  1 cycles:\n\
         \tA+24 do_b+0x4 (s1.c:5) ([kernel.kallsyms])\n\
         \tA+0a [unknown] do_a+0xa/0x20 (s0.c:10) ([kernel.kallsyms])\n\
         \t    7f0000001234 main+0x4 (/usr/bin/cat)\n\
         \n\
         cat  1234 [001]  10.000001:  1 cycles:\n\
         \tA+24 do_b+0x4 (s1.c:5) ([kernel.kallsyms])\n"
    );
    assert_eq!(status, Some(0));
}

#[test]
fn bt_of_crash() {
    let (out, status) = decoded(
        &kernel(),
        SLIDE_ARGUMENT,
        " #0 [ffffb1c0403bfc48] do_b at A+24\n    [exception RIP: do_a+5]\n    RIP: A+05  RSP: ffffb1c0403bfe60  RFLAGS: 00010246\n#10 [ffffb1c0403bfe60] xfs_read at ffffffffc0101234 [xfs]\n",
    );
    assert_eq!(
        out,
        " #0 [ffffb1c0403bfc48] do_b at A+24 (s1.c:4)\n    [exception RIP: do_a+5]\n    RIP: A+05 do_a+0x5/0x20 (s0.c:6)  RSP: ffffb1c0403bfe60  RFLAGS: 00010246\n#10 [ffffb1c0403bfe60] xfs_read at ffffffffc0101234 [xfs]\n"
    );
    assert_eq!(status, Some(0));
}

#[test]
fn other_tools_have_return_addresses_and_the_instruction() {
    let log = "#0  0xA+05 in do_a ()\n\
               #1  0xA+24 in do_b ()\n \
                => do_b (A+24)\n\
               [<0>] 0xA+24\n     \
               PC: A+05  [do_a+5]\n\
               cat 1 [0] 1.0: cycles: A+24 do_b+0x4 ([kernel.kallsyms])\n";
    let (out, status) = decoded(&kernel(), SLIDE_ARGUMENT, log);
    let expected = log
        .replace("do_a ()", "do_a () (s0.c:6)")
        .replace("do_b ()", "do_b () (s1.c:4)")
        .replace("(A+24)", "(A+24) (s1.c:4)")
        .replace("[<0>] 0xA+24", "[<0>] 0xA+24 do_b+0x4/0x30 (s1.c:4)")
        .replace("[do_a+5]", "[do_a+5] (s0.c:6)")
        .replace("do_b+0x4 (", "do_b+0x4 (s1.c:5) (");
    assert_eq!((out, status), (expected, Some(0)));
}

#[test]
fn addresses_that_are_left_are_counted() {
    let kernel = kernel();
    let log = format!(" [<{:x}>]\n", TEXT + SLIDE + 0x24);
    let output = decode(&kernel.arguments_alone(), log.as_bytes());
    assert_eq!(output.stdout, log.as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("addresses without a symbol: 1 were left"),
        "{said}"
    );
}

#[test]
fn an_address_that_is_in_another_function_than_the_tool_says_is_left() {
    let kernel = kernel();
    for log in [
        " #0 [ffffb1c0403bfc48] do_a at A+24\n",
        "\tA+24 do_b+0x5 ([kernel.kallsyms])\n",
        "\tA+24 do_c+0x4 ([kernel.kallsyms])\n",
    ] {
        let (out, status) = decoded(&kernel, SLIDE_ARGUMENT, log);
        assert_eq!((out.as_str(), status), (log, Some(3)), "{log}");
    }
}

#[test]
fn json_has_address_and_function() {
    let kernel = kernel();
    let mut arguments = kernel.arguments_alone();
    arguments.extend(["--slide", "1a000000", "--json"].map(str::to_owned));
    let log = format!(" [<{:x}>]\n", TEXT + SLIDE + 0x24);
    let output = decode(&arguments, log.as_bytes());
    let line = output.stdout.split(|byte| *byte == b'\n').next();
    let frame: serde_json::Value =
        serde_json::from_slice(line.expect("a line")).expect("an object");
    assert_eq!(frame["address"], "0xffffffff9b000024");
    assert_eq!(frame["function"], "do_b+0x4/0x30");
    assert_eq!(
        (&frame["file"], &frame["line"]),
        (&"s1.c".into(), &4.into())
    );
}
