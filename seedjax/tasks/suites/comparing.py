"""Stand-ins for the libraries with which multilingual tests compare values: only the
one function of each that the tests call, so that no package has to be installed."""

# Equal as lodash has it: -0 is 0, NaN is NaN, types and keys count.
LODASH = """
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
"""

# Equal as Data::Compare has it: scalars as text, references by what they refer to.
DATA_COMPARE = """
package Data::Compare;
use strict;
use Exporter 'import';
our @EXPORT = ('Compare');

sub Compare {
    my ($x, $y) = @_;
    return !defined $x && !defined $y unless defined $x && defined $y;
    return 0 if ref $x ne ref $y;
    return $x eq $y unless ref $x;
    if (ref $x eq 'ARRAY') {
        return 0 if @$x != @$y;
        Compare($x->[$_], $y->[$_]) || return 0 for 0 .. $#$x;
        return 1;
    }
    if (ref $x eq 'HASH') {
        return 0 if keys %$x != keys %$y;
        exists $y->{$_} && Compare($x->{$_}, $y->{$_}) || return 0 for keys %$x;
        return 1;
    }
    return Compare($$x, $$y) if ref $x eq 'SCALAR' || ref $x eq 'REF';
    return $x == $y;
}
1;
"""

# Equal as CompareNetObjects has it by default: by type, sequences item by item in their
# order, dictionaries by key, everything else by value.
COMPARE_NET_OBJECTS = """
using System;
using System.Collections;

namespace KellermanSoftware.CompareNetObjects
{
    public class ComparisonResult
    {
        public bool AreEqual { get; set; }
    }

    public class CompareLogic
    {
        public ComparisonResult Compare(object first, object second)
        {
            return new ComparisonResult { AreEqual = Same(first, second) };
        }

        static bool Same(object first, object second)
        {
            if (first == null || second == null) return first == null && second == null;
            if (first.GetType() != second.GetType()) return false;
            var table = first as IDictionary;
            if (table != null)
            {
                var other = (IDictionary)second;
                if (table.Count != other.Count) return false;
                foreach (object key in table.Keys)
                    if (!other.Contains(key) || !Same(table[key], other[key]))
                        return false;
                return true;
            }
            if (first is string || !(first is IEnumerable)) return first.Equals(second);
            var left = ((IEnumerable)first).GetEnumerator();
            var right = ((IEnumerable)second).GetEnumerator();
            while (left.MoveNext())
                if (!right.MoveNext() || !Same(left.Current, right.Current))
                    return false;
            return !right.MoveNext();
        }
    }
}
"""

# Language -> file name -> text, put beside the program.
STAND_INS: dict[str, dict[str, str]] = {
    "javascript": {"node_modules/lodash.js": LODASH},
    "perl": {"Data/Compare.pm": DATA_COMPARE},
    "csharp": {"CompareNetObjects.cs": COMPARE_NET_OBJECTS},
}
