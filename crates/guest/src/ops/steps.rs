//! Programs: many steps with one answer.

use serde_json::Value;

use super::access::EXAMPLES;
use crate::protocol::{Op, ProgramReport, Refusal, RefusedStep, Verified};

/// Executes `steps` in order, again and again.
pub(super) fn run(
    steps: &[Op],
    repeat: u64,
    execute: impl Fn(&Op) -> Result<Value, Refusal>,
) -> ProgramReport {
    let mut report = ProgramReport::default();
    for _ in 0..repeat {
        for (step, op) in (0..).zip(steps) {
            report.steps += 1;
            match execute(op) {
                Ok(answer) => {
                    if let Op::Verify { .. } = op
                        && let Ok(verified) = serde_json::from_value(answer)
                    {
                        add(&mut report.verified, verified);
                    }
                }
                Err(why) => {
                    report.refused += 1;
                    if report.refusals.len() < EXAMPLES {
                        report.refusals.push(RefusedStep { step, why });
                    }
                }
            }
        }
    }
    report
}

fn add(sum: &mut Verified, more: Verified) {
    sum.pages += more.pages;
    sum.wrong += more.wrong;
    let room = EXAMPLES.saturating_sub(sum.examples.len());
    sum.examples.extend(more.examples.into_iter().take(room));
}
