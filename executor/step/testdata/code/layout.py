def tabs(x):
	if x:
	    return [
  1,
 2, # odd
]

    # a comment that fits no block
	return (x
if x else
   None)
  # another one

def continued(a,
              b,
   c): \
   return a + \
     b

class A:
    x = 1

    # between

    def f(self):

        """Documented
	with a tab."""

        if self: pass; return

        else: return 1
    y = 2
if 1:
    if 2:
        if 3:
            x = '''
not code
  '''
def last(): return [lambda: 1, {1: 2}, {x: y for x, y in []}]
# the end has no newline