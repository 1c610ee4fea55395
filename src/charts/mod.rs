//! Pictures of a run: as text for a terminal ([`timeline`]), as SVG and HTML ([`plot`]).

pub mod bench;
pub mod plot;
pub mod timeline;
