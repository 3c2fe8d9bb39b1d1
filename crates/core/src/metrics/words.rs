//! From lines of the table to a type.

/// Declares a struct of `u64` fields, their order, and the metrics they belong to.
macro_rules! words {
    (
        $(#[$meta:meta])+
        $name:ident:
        $($unit:ident $metric:ident $($help:literal)? {
            $($doc:tt $field:ident $(: $label:ident = $value:literal)?;)+
        })+
    ) => {
        $(#[$meta])+
        pub struct $name {
            $($(#[doc = $doc] pub $field: u64,)+)+
        }

        impl $name {
            /// How many there are.
            pub const COUNT: usize = [$($(stringify!($field),)+)+].len();

            /// The metrics they belong to, in the same order.
            pub(crate) const METRICS: &[$crate::metrics::Line] = &[$($crate::metrics::Line {
                name: concat!("uffd_", stringify!($metric)),
                unit: stringify!($unit),
                help: [$($help,)? ""][0],
                series: &[$($crate::metrics::LineSeries {
                    field: stringify!($field),
                    doc: $doc,
                    label: [$(Some((stringify!($label), $value)),)? None][0],
                },)+],
            },)+];

            /// Their values, in a fixed order.
            pub const fn to_words(&self) -> [u64; Self::COUNT] {
                [$($(self.$field,)+)+]
            }

            /// Those with these values.
            pub const fn from_words(words: [u64; Self::COUNT]) -> Self {
                let [$($($field,)+)+] = words;
                Self { $($($field,)+)+ }
            }
        }
    };
}

pub(crate) use words;
