//! The tables once more, for the documentation.

use std::fmt::Write;

use super::table;
use crate::results::Results;

/// The machine, the targets and every workload.
pub(crate) fn of(results: &Results, command: &str) -> String {
    let placed = if results.pinned { "handlers and guests on cores of their own" } else { "free" };
    let mut text = format!(
        "# Results\n\nWritten by `{command}`; [benchmarks.md](../benchmarks.md) says how to read it.\n\n\
         {}; {} rounds; {placed}; {}.\n\n## Targets\n\n",
        results.machine,
        results.rounds,
        table::other_work(results)
    );
    text.push_str(&as_markdown(&table::target_rows(results)));
    for workload in &results.workloads {
        let _ = write!(text, "\n## {}\n\n", workload.workload.name);
        let _ = write!(text, "The guest: {}.\n\n", workload.workload.about);
        text.push_str(&as_markdown(&table::workload_rows(workload)));
    }
    text
}

/// Rows of which the first is the head.
fn as_markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if at == 0 {
            let rules: Vec<&str> =
                (0..row.len()).map(|at| if at == 0 { "---" } else { "---:" }).collect();
            let _ = writeln!(text, "| {} |", rules.join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_is_the_head() {
        let rows = [["a", "b"], ["c", "1"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(as_markdown(&rows), "| a | b |\n| --- | ---: |\n| c | 1 |\n");
    }
}
