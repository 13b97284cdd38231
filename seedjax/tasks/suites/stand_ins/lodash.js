// Equal as lodash has it: -0 is 0, NaN is NaN, types and keys count.
function isEqual(a, b) {
  if (a === b || (a !== a && b !== b)) return true;
  if (a === null || b === null) return false;
  if (typeof a !== 'object' || typeof b !== 'object') return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (a instanceof Date) return isEqual(a.getTime(), b.getTime());
  if (a instanceof RegExp) return String(a) === String(b);
  if (a instanceof Set) {
    return a.size === b.size &&
      [...a].every(x => b.has(x) || [...b].some(y => isEqual(x, y)));
  }
  if (a instanceof Map) {
    return a.size === b.size &&
      [...a].every(x => [...b].some(y => isEqual(x, y)));
  }
  if (Array.isArray(a) && a.length !== b.length) return false;
  if (a.valueOf() !== a) return isEqual(a.valueOf(), b.valueOf());
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every(key => Object.hasOwn(b, key) && isEqual(a[key], b[key]));
}
module.exports = { isEqual };
