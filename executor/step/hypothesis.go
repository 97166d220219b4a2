package step

import "math"

// testResult is what came out of a test of a hypothesis.
type testResult struct {
	statistic, p, effect float64
	df                   []float64
	n                    int
}

// welch compares the means of two groups that may vary differently; its effect
// is Cohen's d, by the pooled deviation.
func welch(a, b []float64) testResult {
	na, nb := float64(len(a)), float64(len(b))
	f := testResult{n: len(a) + len(b), statistic: math.NaN(), p: math.NaN(), effect: math.NaN()}
	va, vb := spread(a), spread(b)
	if sa, sb := va/na, vb/nb; sa+sb > 0 {
		distance := average(a) - average(b)
		f.statistic = distance / math.Sqrt(sa+sb)
		df := (sa + sb) * (sa + sb) / (sa*sa/(na-1) + sb*sb/(nb-1))
		f.df = []float64{df}
		f.p = studentP(f.statistic, df)
		f.effect = distance / math.Sqrt(((na-1)*va+(nb-1)*vb)/(na+nb-2))
	}
	return f
}

// anova compares the means of groups, one way; its effect is eta squared, the
// share of the variation that lies between the groups.
func anova(groups [][]float64) testResult {
	f := testResult{statistic: math.NaN(), p: math.NaN(), effect: math.NaN()}
	var all []float64
	for _, g := range groups {
		all = append(all, g...)
	}
	f.n = len(all)
	whole := average(all)
	between, within := 0.0, 0.0
	for _, g := range groups {
		m := average(g)
		between += float64(len(g)) * (m - whole) * (m - whole)
		within += float64(len(g)) * moment(g, m, 2)
	}
	df1, df2 := float64(len(groups)-1), float64(len(all)-len(groups))
	if within > 0 && df1 > 0 && df2 > 0 {
		f.statistic = between / df1 / (within / df2)
		f.df = []float64{df1, df2}
		f.p = fisherP(f.statistic, df1, df2)
		f.effect = between / (between + within)
	}
	return f
}

// chiSquare tests whether two classifications are independent, without a
// correction for continuity; its effect is Cramér's V. lowest is the smallest
// expected count.
func chiSquare(counts [][]float64) (f testResult, lowest float64) {
	f = testResult{statistic: math.NaN(), p: math.NaN(), effect: math.NaN()}
	lowest = math.Inf(1)
	if len(counts) < 2 || len(counts[0]) < 2 {
		return f, lowest
	}
	down, across, total := make([]float64, len(counts)), make([]float64, len(counts[0])), 0.0
	for i, row := range counts {
		for j, n := range row {
			down[i] += n
			across[j] += n
			total += n
		}
	}
	sum := 0.0
	for i, row := range counts {
		for j, n := range row {
			expected := down[i] * across[j] / total
			if !(expected > 0) {
				return f, lowest
			}
			lowest = min(lowest, expected)
			sum += (n - expected) * (n - expected) / expected
		}
	}
	df := float64((len(down) - 1) * (len(across) - 1))
	f.n, f.statistic, f.df, f.p = int(total), sum, []float64{df}, chiSquareP(sum, df)
	f.effect = math.Sqrt(sum / total / float64(min(len(down), len(across))-1))
	return f, lowest
}

// jarqueBera tests whether numbers may come from a normal distribution, by their
// skewness, which is its effect, and kurtosis.
func jarqueBera(x []float64) testResult {
	skew, kurtosis := shape(x)
	jb := float64(len(x)) / 6 * (skew*skew + kurtosis*kurtosis/4)
	return testResult{statistic: jb, df: []float64{2}, p: chiSquareP(jb, 2), n: len(x), effect: skew}
}
