//! What is counted, described once in [`table`], and how it is seen from outside: a guest's fault
//! loop shows its [`Figures`], a server sums them up in [`Totals`], and [`metrics`] says what each
//! number is. Nothing here waits for a fault loop, or makes one wait.

mod describe;
mod distribution;
mod figures;
mod table;
mod totals;
mod words;

pub use describe::{Kind, Metric, Scope, Series, metrics};
pub(crate) use describe::{Line, LineSeries};
pub use distribution::{BOUNDS, BUCKETS, Distribution, FaultClass};
pub use figures::{Figures, Reading};
pub use table::{Ahead, Counters, Holdings, ServerCounters, StateCounts};
pub use totals::{Ending, Member, ServerReading, Totals};
