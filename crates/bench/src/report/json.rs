//! Everything that was measured, for programs.

use serde_json::{Value, json};

use crate::results::Results;

/// Each figure of each round, and the targets.
pub(crate) fn of(results: &Results) -> Value {
    let workloads = results.workloads.iter().map(|results| {
        let contenders = results
            .contenders
            .iter()
            .map(|contender| json!({ "name": contender.name, "rounds": contender.rounds }));
        json!({
            "name": results.workload.name,
            "about": results.workload.about,
            "contenders": contenders.collect::<Vec<_>>(),
        })
    });
    let targets = results.figures().map(|(target, figure)| {
        json!({
            "what": target.what,
            "workload": target.workload,
            "metric": target.metric,
            "of": target.of,
            "against": target.against,
            "limit": target.bound.to_string(),
            "figure": figure,
            "met": target.bound.is_met(figure.median),
        })
    });
    json!({
        "machine": results.machine,
        "at": results.at,
        "quick": results.quick,
        "pinned": results.pinned,
        "rounds": results.rounds,
        "other_work_percent": results.others,
        "workloads": workloads.collect::<Vec<_>>(),
        "targets": targets.collect::<Vec<_>>(),
    })
}
