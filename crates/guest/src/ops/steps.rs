//! Programs: many steps with one answer.

use super::access::EXAMPLES;
use crate::protocol::{Op, ProgramReport, RefusedStep, Verified};
use crate::worker::Guest;

pub(super) fn run(guest: &Guest, steps: &[Op], repeat: u64) -> ProgramReport {
    let mut report = ProgramReport::default();
    for _ in 0..repeat {
        for (step, op) in (0..).zip(steps) {
            report.steps += 1;
            match super::execute(guest, op) {
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
