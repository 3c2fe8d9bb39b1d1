//! Random programs of several threads, checked byte by byte against a model of what each page may
//! hold.

pub(crate) mod pages;
pub(crate) mod program;
pub(crate) mod run;
