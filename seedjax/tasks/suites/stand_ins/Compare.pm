# Equal as Data::Compare has it: scalars as text, references by what they refer to.
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
