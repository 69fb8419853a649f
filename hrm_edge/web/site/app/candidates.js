// How many tokens of a cell are kept with their odds, for whoever looks at the cell.

export const CANDIDATES = 3;
