//! Rules as the expressions that the kernel runs, and back: nft's linearize and delinearize steps.

pub(crate) mod context;
pub(crate) mod delinearize;
pub(crate) mod delinearize_statement;
pub(crate) mod expr;
pub(crate) mod linearize;
pub(crate) mod linearize_statement;
pub(crate) mod registers;
