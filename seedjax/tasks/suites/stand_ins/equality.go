type equality struct{}

func (equality) New(t *testing.T) equality { return equality{} }

func (equality) Equal(expected, actual interface{}, _ ...interface{}) {
	if !reflect.DeepEqual(expected, actual) {
		panic(fmt.Sprint(actual, " is not ", expected))
	}
}

var assert equality
