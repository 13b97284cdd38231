"""Parts of the lab's programs.

    leaves ─┐
            ├─▶ primitives ─▶ catalogue
    skeletons ─┘

A leaf is a predicate, a change or a sort key of one element; a skeleton is what is done
with it over a whole value; joined they are a primitive. Other primitives are written
out, in one file a type of input. The catalogue holds them all.
"""
