use napi_derive::napi;

/// What came of a prefault. Every page asked for is in exactly one of the counts.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct PrefaultReport {
    /// Pages asked for.
    pub requested: f64,
    /// Pages installed by this prefault.
    pub installed: f64,
    /// Pages that are in the host's memory now and were not installed: what `readAhead` does.
    pub fetched: f64,
    /// Pages found installed: by a fault, an earlier prefault or the VMM.
    pub present: f64,
    /// Pages the guest had given back; they read as zeros and were left alone.
    pub removed: f64,
    /// Pages that could not be had.
    pub failed: f64,
    /// Pages not reached: the prefault was aborted, or the guest ended.
    pub skipped: f64,
    /// The lowest page that could not be had, where there is one.
    pub first_failed: Option<f64>,
}

impl From<uffd_core::session::PrefaultReport> for PrefaultReport {
    fn from(report: uffd_core::session::PrefaultReport) -> Self {
        Self {
            requested: report.requested() as f64,
            installed: report.installed as f64,
            fetched: report.fetched as f64,
            present: report.present as f64,
            removed: report.removed as f64,
            failed: report.failed as f64,
            skipped: report.skipped as f64,
            first_failed: report.first_failed.map(|page| page.0 as f64),
        }
    }
}
