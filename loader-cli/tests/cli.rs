//! The command line as users see it, failures included.

#[test]
fn commands_say_what_their_golden_files_say() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
