-- KEYS: record, names on its shelf, the shelf's edition. ARGV: name. Gives whether it was there.
call('ZREM', KEYS[2], ARGV[1])
if call('UNLINK', KEYS[1]) == 0 then return 0 end
call('INCR', KEYS[3])
return 1
