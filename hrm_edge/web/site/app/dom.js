// What several modules ask of the page.

/** @param {string} id */
export const byId = (id) => document.getElementById(id);
