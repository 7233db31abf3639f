//! Who may load: the credentials of the client decide. Only root can run a client as another user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lineinfo_core::Address;
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE};
use lineinfo_core::uapi::{AddressBase, Errno, Ioctl, Lookup};
use nix::unistd::Uid;
use zerocopy::IntoBytes;

use crate::support::{Client, KERNEL, Kernel, open_directory};

const NOBODY: u32 = 65534;
/// How often nobody tries to load.
const ATTEMPTS: usize = 100;
/// Names the socket to the child.
const SOCKET: &str = "SIM_KERNEL_TEST_SOCKET";

#[test]
fn others_may_look_and_not_load() {
    if !Uid::effective().is_root() {
        return;
    }
    let mut kernel = Kernel::boot(&[]);
    // The target directory may be closed to others.
    let directory = open_directory();
    let program = directory.path().join("as-nobody");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    let output = Command::new(&program)
        .args(["--exact", "credentials::as_nobody", "--ignored"])
        .env(SOCKET, kernel.socket())
        .current_dir(directory.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
    let line = kernel.wait_for("lineinfo: open refused");
    assert!(
        line.contains("user 65534") && line.ends_with("-EPERM"),
        "{line}"
    );
    // It tried often, and the log says so only now and then.
    kernel.output_of("meminfo");
    let lines = |what: &str| {
        let has = |line: &&String| line.contains(what);
        kernel.log.iter().filter(has).count()
    };
    let logged = lines("lineinfo: open refused");
    let suppressed = lines("refusals suppressed");
    assert!(logged <= 10 * (suppressed + 1), "{logged} lines");
    assert!(logged < ATTEMPTS / 2, "{logged} lines");
}

#[test]
#[ignore = "a part of the test above, run as another user"]
fn as_nobody() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let socket = Path::new(&socket);
    for flags in [OPEN_WRITE, OPEN_READ | OPEN_WRITE].repeat(ATTEMPTS / 2) {
        let mut client = Client::connect(socket);
        assert_eq!(client.open(flags), Err(Errno::EPERM.number()));
        assert_eq!(client.unload(), Err(Errno::EBADF.number()));
    }
    let mut client = Client::connect(socket);
    client.open(OPEN_READ).expect("anybody may read");
    assert_eq!(client.status().state, 0);
    // Whoever could ask for any address would find out where the kernel is.
    let question = Lookup::new(Address::Exact(0));
    assert_eq!(
        client.ioctl(Ioctl::Lookup, question.as_bytes()),
        Err(Errno::EPERM.number())
    );
    assert_eq!(client.unload(), Err(Errno::EBADF.number()));
    assert_eq!(client.write(b"x"), Err(Errno::EBADF.number()));
    // By offset the answer is the same wherever the kernel is; here is no table.
    let question = Lookup::from_base(Address::Exact(0), AddressBase::Text);
    assert_eq!(
        client.ioctl(Ioctl::Lookup, question.as_bytes()),
        Err(Errno::ENODATA.number())
    );
    // What one user can have is not all that others can have.
    let mut others: Vec<Client> = Vec::new();
    let mut turned_away = 0;
    for _ in 0..64 {
        let mut client = Client::connect(socket);
        match client.open(OPEN_READ) {
            Ok(()) => others.push(client),
            Err(errno) => {
                assert_eq!(errno, Errno::EMFILE.number());
                turned_away += 1;
            }
        }
    }
    assert_eq!(
        (others.len(), turned_away),
        (CONNECTIONS - 1, 65 - CONNECTIONS)
    );
}

/// How many connections a user who may not load can have.
const CONNECTIONS: usize = 16;

#[test]
fn kptr_restrict_hides_addresses_from_everybody() {
    let mut kernel = Kernel::boot(&[]);
    let addresses = |kernel: &mut Kernel| {
        let lines = kernel.output_of("cat /proc/kallsyms");
        let zeros = |line: &&String| line.starts_with("0000000000000000 ");
        (lines.iter().filter(zeros).count(), lines.len())
    };
    let path = "/proc/sys/kernel/kptr_restrict";
    for (value, is_shown) in [("0", true), ("1", true), ("2", false), ("0", true)] {
        kernel.output_of(&format!("echo {value} > {path}"));
        assert_eq!(kernel.output_of(&format!("cat {path}")), [value]);
        let (hidden, all) = addresses(&mut kernel);
        assert!(all > 100);
        assert_eq!(hidden, if is_shown { 0 } else { all }, "{value}");
        let mut client = kernel.connect();
        client.open(OPEN_READ).expect("anybody may read");
        let question = Lookup::new(Address::Exact(0));
        let expected = if is_shown {
            Errno::ENODATA
        } else {
            Errno::EPERM
        };
        assert_eq!(
            client.ioctl(Ioctl::Lookup, question.as_bytes()),
            Err(expected.number())
        );
    }
    for bad in ["3", "-1", "x"] {
        let said = kernel.output_of(&format!("echo {bad} > {path}"));
        assert!(said.iter().any(|line| line.contains("EINVAL")), "{said:?}");
    }
    assert_eq!(kernel.output_of(&format!("cat {path}")), ["0"]);
}

#[test]
fn the_socket_has_its_permissions_whatever_the_umask_is() {
    let directory = open_directory();
    let socket = directory.path().join("sock");
    for mask in ["000", "022", "077", "777"] {
        let mut command = Command::new("sh");
        let script = format!("umask {mask}; exec \"$@\"");
        command
            .args(["-c", &script, "sh", KERNEL, "--socket"])
            .arg(&socket);
        let kernel = lineinfo_harness::Kernel::start(&mut command, &socket).expect("it boots");
        let mode = fs::metadata(&socket)
            .expect("a socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o666, "umask {mask}");
        let (_, status) = kernel.last_command("poweroff").expect("it ends");
        assert!(status.success());
    }
}
