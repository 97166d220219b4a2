package step

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
)

// The figures here take float64 and give NaN where a figure does not exist.

func floats(values []any) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = toFloat(v)
	}
	return out
}

// pairsOf are the numbers of the rows that have both columns.
func pairsOf(rows []map[string]any, a, b string) (x, y []float64) {
	for _, r := range rows {
		if r[a] != nil && r[b] != nil {
			x, y = append(x, toFloat(r[a])), append(y, toFloat(r[b]))
		}
	}
	return x, y
}

// quantile is linear between the neighbours, of numbers in order.
func quantile(order []float64, p float64) float64 {
	if len(order) == 0 {
		return math.NaN()
	}
	at := p * float64(len(order)-1)
	i := min(int(at), len(order)-1)
	j := min(i+1, len(order)-1)
	return order[i] + (order[j]-order[i])*(at-float64(i))
}

func average(x []float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	m := 0.0
	for i, v := range x {
		m += (v - m) / float64(i+1)
	}
	rest := 0.0 // what rounding has taken away
	for _, v := range x {
		rest += v - m
	}
	return m + rest/float64(len(x))
}

// moment is the mean of the distances from m to the power p.
func moment(x []float64, m float64, p int) float64 {
	sum := 0.0
	for _, v := range x {
		d, t := v-m, 1.0
		for range p {
			t *= d
		}
		sum += t
	}
	return sum / float64(len(x))
}

// spread is the variance of a sample.
func spread(x []float64) float64 {
	if len(x) < 2 {
		return math.NaN()
	}
	n := float64(len(x))
	return moment(x, average(x), 2) * n / (n - 1)
}

// shape is skewness and excess kurtosis, both from the plain moments.
func shape(x []float64) (skewness, kurtosis float64) {
	m := average(x)
	m2 := moment(x, m, 2)
	if !(m2 > 0) {
		return math.NaN(), math.NaN()
	}
	return moment(x, m, 3) / math.Pow(m2, 1.5), moment(x, m, 4)/(m2*m2) - 3
}

// pearson is the correlation of two columns, NaN where one does not vary.
func pearson(x, y []float64) float64 {
	mx, my := average(x), average(y)
	scaleX, scaleY := 0.0, 0.0 // squares of large numbers must not overflow
	for i := range x {
		scaleX, scaleY = max(scaleX, math.Abs(x[i]-mx)), max(scaleY, math.Abs(y[i]-my))
	}
	// What is left of equal numbers by rounding is no variation.
	if len(x) < 2 || !(scaleX > 1e-14*math.Abs(mx)) || !(scaleY > 1e-14*math.Abs(my)) || math.IsInf(scaleX, 0) || math.IsInf(scaleY, 0) {
		return math.NaN()
	}
	xx, yy, xy := 0.0, 0.0, 0.0
	for i := range x {
		dx, dy := (x[i]-mx)/scaleX, (y[i]-my)/scaleY
		xx, yy, xy = xx+dx*dx, yy+dy*dy, xy+dx*dy
	}
	return max(-1, min(1, xy/math.Sqrt(xx)/math.Sqrt(yy)))
}

// ranks counts from 1; equal numbers share the mean of their ranks.
func ranks(x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	out := make([]float64, len(x))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && x[order[j]] == x[order[i]] {
			j++
		}
		for k := i; k < j; k++ {
			out[order[k]] = float64(i+j+1) / 2
		}
		i = max(j, i+1) // NaN equals nothing
	}
	return out
}

// correlationP is the probability of a correlation at least as strong where
// there is none, by Student's t with n-2 degrees of freedom.
func correlationP(r float64, n int) float64 {
	if n < 3 || math.IsNaN(r) {
		return math.NaN()
	}
	if math.Abs(r) == 1 {
		return 0
	}
	return studentP(r*math.Sqrt(float64(n-2)/((1-r)*(1+r))), float64(n-2))
}

// studentP is the probability of a t at least as far from 0, on either side.
func studentP(t, df float64) float64 {
	if math.IsNaN(t) || !(df > 0) {
		return math.NaN()
	}
	return mathext.RegIncBeta(df/2, 0.5, df/(df+t*t))
}

// studentQuantile is the t that is not exceeded, on either side, with the
// probability level.
func studentQuantile(level, df float64) float64 {
	if !(df > 0) || !(level > 0 && level < 1) {
		return math.NaN()
	}
	x := mathext.InvRegIncBeta(df/2, 0.5, 1-level)
	return math.Sqrt(df * (1 - x) / x)
}

// fisherP is the probability of an F at least as large.
func fisherP(f, df1, df2 float64) float64 {
	if math.IsNaN(f) || f < 0 || !(df1 > 0) || !(df2 > 0) {
		return math.NaN()
	}
	return mathext.RegIncBeta(df2/2, df1/2, df2/(df2+df1*f))
}

// chiSquareP is the probability of a chi-square at least as large.
func chiSquareP(x, df float64) float64 {
	if math.IsNaN(x) || x < 0 || !(df > 0) {
		return math.NaN()
	}
	return mathext.GammaIncRegComp(df/2, x/2)
}
