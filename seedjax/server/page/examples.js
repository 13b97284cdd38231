// Small programs to begin with; the text between « and » is selected.
const MARKED = {
  "generate: a prime number": `def is_prime(n):
    """Return whether n is a prime number."""
«»`,
  "infill: a loop": `def evens(numbers):
    """Keep only the even numbers of numbers and return the sum of the result."""
«    pass
»    return sum(first)
`,
  "repair: the largest": `def largest(values):
    """Return the largest of values."""
    if not values:
        return 0
    result = values[0]
    for x in values:
        if x < result:
            result = x
    return result
«»`,
  "edit: another name": `def total(values):
    return sum(values)
«»`,
};
const INSTRUCTIONS = { "edit: another name": "Rename the function to add_up." };

export const EXAMPLES = Object.fromEntries(
  Object.entries(MARKED).map(([name, marked]) => {
    const from = marked.indexOf("«");
    const to = marked.indexOf("»") - 1;
    const text = marked.replace("«", "").replace("»", "");
    return [name, { text, from, to, instruction: INSTRUCTIONS[name] }];
  }),
);
