//! The page explains every word that a status says of what is in the way.

use foldline_testkit::page;

use crate::task::BlockedBy;

#[test]
fn the_page_has_every_word_of_what_is_in_the_way() {
    let rows = page::table("docs/reference.md", "## What `status` says is in the way");
    let told: Vec<&str> = rows.iter().map(|row| row[0][0].as_str()).collect();
    assert_eq!(told, BlockedBy::ALL.map(BlockedBy::name));
}
