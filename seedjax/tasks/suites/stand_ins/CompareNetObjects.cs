// Equal as CompareNetObjects has it by default: by type, sequences item by item in their
// order, dictionaries by key, everything else by value.
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
